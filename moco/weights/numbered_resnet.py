"""Rename a ResNet with numbered parts, as `nn.Sequential(*network.children())` has them, to torchvision's names.

lightly's examples build backbones in this way. From torchvision's ResNets: 0 conv1, 1 bn1, 2 ReLU, 3 max-pooling, 4-7
the stages. From lightly's own, without pooling or a module for ReLU: 0 conv1, 1 bn1, 2-5 the stages; a downsample is
called "shortcut".
"""

import re

from torch import Tensor

NUMBERED = re.compile(r"(\d+)\.(.+)")
STAGES = {"torchvision": 4, "lightly": 2}  # number of the first stage


def from_numbered(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str] | None:
    """The tensors by torchvision's names, and the ResNet's origin (a key of `STAGES`); None: the parts have names."""
    if not {"0.weight", "1.running_mean"} <= tensors.keys() or not all(NUMBERED.match(key) for key in tensors):
        return None
    for whose, first in STAGES.items():
        stages = {f"{first + i}.0.conv1.weight" for i in range(4)}
        if stages <= tensors.keys():
            return {_torchvision_name(key, first): tensor for key, tensor in tensors.items()}, whose
    return None


def _torchvision_name(key: str, first: int) -> str:
    number, _, rest = key.partition(".")
    stage = int(number) - first + 1
    if stage < 1:
        return f"{('conv1', 'bn1')[int(number)]}.{rest}" if number in "01" else key
    return f"layer{stage}.{rest}".replace(".shortcut.", ".downsample.") if stage <= 4 else key
