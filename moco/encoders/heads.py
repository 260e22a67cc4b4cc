"""The head g, from the feature to the embedding: feature N x D -> embedding N x C, before its L2 normalization."""

from collections.abc import Callable

from torch import nn


def linear(num_features: int, dim: int) -> nn.Module:
    """MoCo v1's head: one linear layer (facebookresearch/moco, builder.py). With nn.Linear's own initial weights."""
    return nn.Linear(num_features, dim)


def mlp(num_features: int, dim: int) -> nn.Module:
    """MoCo v2's head: a hidden layer as wide as the feature, ReLU, no BN (arXiv:2003.04297, Sec. 3)."""
    return nn.Sequential(nn.Linear(num_features, num_features), nn.ReLU(inplace=True), nn.Linear(num_features, dim))


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"linear": linear, "mlp": mlp}
