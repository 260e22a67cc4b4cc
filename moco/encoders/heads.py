"""The head g (feature to embedding), and the predictor after it. The L2 normalization is not part of them.

The layers are in nn.Sequential as in the released files, so names agree: `0.weight`, `1.*`, `3.weight`, `4.*`.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from torch import nn

from moco.recipe import EncoderSpec


def linear_head(num_features: int, spec: EncoderSpec) -> nn.Module:
    """MoCo v1's head: one linear layer (facebookresearch/moco, builder.py). nn.Linear's own initial weights."""
    return nn.Linear(num_features, spec.dim)


def mlp_head(num_features: int, spec: EncoderSpec) -> nn.Module:
    """MoCo v2's head: a hidden layer as wide as the feature, ReLU, no BN (arXiv:2003.04297, Sec. 3)."""
    hidden = nn.Linear(num_features, num_features)
    return nn.Sequential(hidden, nn.ReLU(inplace=True), nn.Linear(num_features, spec.dim))


def projector2(num_features: int, spec: EncoderSpec) -> nn.Module:
    """MoCo v3's head of a ResNet: two layers, BN after each, the last BN without weights."""
    return _layers((num_features, spec.hidden, spec.dim), bn=spec.head_bn, last_bn=True)


def projector3(num_features: int, spec: EncoderSpec) -> nn.Module:
    """MoCo v3's head of a ViT: three layers, BN after each, the last BN without weights (arXiv:2104.02057)."""
    return _layers((num_features, spec.hidden, spec.hidden, spec.dim), bn=spec.head_bn, last_bn=True)


HEADS: dict[str, Callable[[int, EncoderSpec], nn.Module]] = {
    "linear": linear_head,
    "mlp": mlp_head,
    "projector2": projector2,
    "projector3": projector3,
}


def predictor(spec: EncoderSpec, kind: Literal["none", "mlp", "mlp_bn"]) -> nn.Module | None:
    """MoCo v3's predictor C -> hidden -> C, on f_q only: "mlp" for ResNets, "mlp_bn" (ends in a BN) for ViTs."""
    if kind == "none":
        return None
    return _layers((spec.dim, spec.hidden, spec.dim), bn=spec.head_bn, last_bn=kind == "mlp_bn")


def _layers(widths: tuple[int, ...], *, bn: bool, last_bn: bool) -> nn.Sequential:
    """Linear layers of these widths, with BN and ReLU between them. `last_bn`: a BN without weights at the end.

    With `bn` no linear layer has a bias, because BN subtracts it again; the last layer of the "mlp" predictor has none
    either, as in the released files. Without `bn` every linear layer has a bias.
    """
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        layers.append(nn.Linear(inputs, outputs, bias=not bn))
        if bn and (last_bn or not last):
            layers.append(nn.BatchNorm1d(outputs, affine=not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
