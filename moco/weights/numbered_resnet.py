"""Rename a ResNet whose parts are numbered, as `nn.Sequential(*network.children())` does, to torchvision's names.

lightly's examples make a backbone so, of torchvision's ResNets (0 conv1, 1 bn1, 2 ReLU, 3 max-pooling, 4-7 the stages)
and of lightly's own, whose ReLU is no module, which have no pooling and call a downsample "shortcut" (2-5 the stages).
"""

import re

from torch import Tensor

NUMBERED = re.compile(r"(\d+)\.(.+)")
STAGES = {"torchvision": 4, "lightly": 2}  # the number of the first


def from_numbered(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str] | None:
    """The tensors by torchvision's names, and whose ResNet it is (a key of `STAGES`); None: names have no numbers."""
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
