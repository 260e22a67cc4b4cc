"""A small encoder, and the same written out as functions over BN groups. Nothing here uses `moco`."""

import torch
import torch.nn.functional as F
from torch import nn

N, GROUPS, SEED = 8, 2, 5  # images in a mini-batch, its BN groups, seed of a run


def encoder(head: str) -> nn.Module:
    linear = [nn.Linear(6, 4)] if head == "linear" else [nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)]
    trunk = [nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*trunk, *linear).double()


def f(p: dict, x: torch.Tensor, head: str) -> torch.Tensor:
    """The encoder over its BN groups, written out; updates the running statistics in `p`."""
    features, means, variances = [], [], []
    for part in x.chunk(GROUPS):
        y = F.conv2d(part, p["0.weight"])
        mean, var = y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), unbiased=False)
        means.append(mean.detach())
        variances.append(y.var(dim=(0, 2, 3), unbiased=True).detach())
        y = (y - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
        y = y * p["1.weight"][:, None, None] + p["1.bias"][:, None, None]
        features.append(y.clamp(min=0).mean(dim=(2, 3)))
    p["1.running_mean"] = 0.9 * p["1.running_mean"] + 0.1 * torch.stack(means).mean(dim=0)
    p["1.running_var"] = 0.9 * p["1.running_var"] + 0.1 * torch.stack(variances).mean(dim=0)
    y = torch.cat(features) @ p["5.weight"].T + p["5.bias"]
    if head == "mlp":
        y = y.clamp(min=0) @ p["7.weight"].T + p["7.bias"]
    return y / y.norm(dim=1, keepdim=True)
