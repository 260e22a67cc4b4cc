"""Momentum Contrast in a loop of your own: the modules of `moco.method`. Run: python examples/own_loop.py

The loss rises at first, from 2.9 to 5.7 in ten steps. This is no fault: the queue starts with random keys, which are
easy to tell from those of pictures. In its first num_keys / batch_size steps they are replaced by keys of pictures, and
the loss goes towards that of chance, ln(num_keys + 1) = 6.9. Only after that does it show what is learned.
"""

import torch
from torchvision.models import resnet18

from moco.method import Contrast, MomentumEncoder, Queue


def train(views_of, *, steps: int, batch_size: int = 32, num_keys: int = 1024) -> list[float]:
    """`views_of(ids)` gives two tensors N x 3 x H x W, two views of the images `ids`. Returns the losses."""
    encoder = resnet18(num_classes=128)
    contrast = Contrast(encoder, MomentumEncoder(encoder), Queue(num_keys, 128), temperature=0.2, bn_groups=4).train()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    losses = []
    for step in range(steps):
        ids = torch.arange(batch_size) + batch_size * step
        rng = torch.Generator().manual_seed(step)  # deals the keys out to the BN groups
        optimizer.zero_grad()
        answers = []
        for part in contrast.parts(views_of(ids), ids, rng):  # keys first, then one BN group at a time
            answers.append(contrast(part, rng))  # Eqn. (1)
            answers[-1].loss.backward()
        optimizer.step()
        contrast.follow(m=0.999)  # Eqn. (2)
        contrast.dictionary.update(torch.cat([answer.k for answer in answers]), ids, step)  # enqueue, dequeue
        losses.append(sum(answer.loss.item() for answer in answers))
    return losses


def noisy_pairs(ids: torch.Tensor) -> list[torch.Tensor]:
    """A stand-in for augmentation: two noisy copies of a picture that each id has."""
    pictures = torch.stack([torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(int(i))) for i in ids])
    return [pictures + 0.3 * torch.randn_like(pictures) for _ in range(2)]


if __name__ == "__main__":
    print("The loss rises while keys of pictures replace the random ones of the queue, in the first 32 steps:")
    print(*(f"{loss:.2f}" for loss in train(noisy_pairs, steps=10)))
