"""Pretrained weights that are on this machine: in packages and in the caches of torchvision, timm and Hugging Face."""

import os
from pathlib import Path

import torch

from moco.encoders.torchvision_timm import torchvision_names
from moco.recipe import RecipeError
from moco.weights.packaged import WEIGHT_PACKAGES, find_packaged
from moco.weights.pretrained import file_on_machine, torchvision_file

REPOSITORY = "models--timm--"  # the start of a folder's name in the cache of Hugging Face


def weights_on_machine() -> list[str]:
    """Names of weights that load without a download."""
    import huggingface_hub.constants

    found = {f"timm/{name}" for name in WEIGHT_PACKAGES if find_packaged(name) is not None}
    for folder in Path(huggingface_hub.constants.HF_HUB_CACHE).glob(f"{REPOSITORY}*"):
        if file_on_machine(name := f"timm/{folder.name.removeprefix(REPOSITORY)}"):
            found.add(name)
    files = {file.name for file in Path(torch.hub.get_dir(), "checkpoints").glob("*.pth")}
    if files:  # listing torchvision's networks imports it, which takes a second
        found |= {name for name in torchvision_names() if torchvision_file(name.partition("/")[2]) in files}
    return sorted(found)


def cheapest_on_machine(network: str, *, other_than: str | None = None) -> str | None:
    """The weights on this machine for a quick comparison: those of `network` if they are there, else the smallest file.

    Args:
        other_than: a name that is not wanted.
    """
    names = [name for name in weights_on_machine() if name != other_than]
    sizes = {name: os.path.getsize(file) for name in names if (file := file_on_machine(name)) is not None}
    same = [name for name in sizes if name.split(".")[0] in (network, f"torchvision/{network}", f"timm/{network}")]
    return min(same or sizes, key=lambda name: sizes[name], default=None)


def check_on_machine(weights: str) -> None:
    """Raise RecipeError if `weights` names weights that would have to be downloaded."""
    if os.path.exists(weights) or file_on_machine(weights):
        return
    names = ", ".join([*weights_on_machine(), "random", "pixels"])
    raise RecipeError(
        f"the baseline {weights} is not on this machine, and moco compare downloads nothing. On the machine: {names}; "
        "or give the path of a file, an encoder folder or a run"
    )
