"""`python -m benchmarks.usual_first_batch FOLDER`: the usual start of a run, up to its first mini-batch."""

import sys

import torch
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

BATCH = 32


def main(folder: str) -> None:
    look = T.Compose([T.RandomResizedCrop(32), T.RandomHorizontalFlip(), T.ToTensor()])
    loader = torch.utils.data.DataLoader(ImageFolder(folder, look), batch_size=BATCH, shuffle=True)
    next(iter(loader))


if __name__ == "__main__":
    main(*sys.argv[1:])
