"""A narrow ResNet, and images for it."""

import torch

from moco.encoders.resnet import NETS, ResNet


def network(name: str = "resnet50") -> ResNet:
    return ResNet(NETS[name], width=0.125)


def images(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
