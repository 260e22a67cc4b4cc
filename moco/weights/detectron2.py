"""Detectron2's names for the tensors of a ResNet, and back to torchvision's."""

import re
from typing import Any

from torch import Tensor

# (pattern in torchvision's names, replacement in Detectron2's), applied one after the other
TO = [
    (r"^(?!layer)", r"stem."),
    (r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}"),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", r"shortcut."),
    (r"\bdownsample\.1\.", r"shortcut.norm."),
]
BACK = [
    (r"^stem\.", r""),
    (r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}"),
    (r"\bconv(\d)\.norm\.", r"bn\1."),
    (r"\bshortcut\.norm\.", r"downsample.1."),
    (r"\bshortcut\.", r"downsample.0."),
]


def to_detectron2(name: str) -> str:
    """`layer1.0.bn1.weight` -> `res2.0.conv1.norm.weight`."""
    return _renamed(name, TO)


def from_detectron2(name: str) -> str:
    """`res2.0.conv1.norm.weight` -> `layer1.0.bn1.weight`."""
    return _renamed(name, BACK)


def is_detectron2(state: dict[str, Tensor]) -> bool:
    return "stem.conv1.weight" in state and "res2.0.conv1.weight" in state


def _renamed(name: str, rules: list[tuple[str, Any]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
