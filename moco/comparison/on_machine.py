"""Pretrained weights that are on this machine: in packages and in the caches of torchvision, timm and Hugging Face."""

import os
from pathlib import Path

from moco.recipe import RecipeError
from moco.weights.packaged import PACKAGES, packaged


def weights_on_machine() -> list[str]:
    """Names of weights that load without a download. Reads folder listings only."""
    found = {f"timm/{name}" for name in PACKAGES if packaged(name) is not None}
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or _cache() / "huggingface", "hub"))
    for folder in hub.glob("models--timm--*"):
        if any(folder.glob("snapshots/*/*.safetensors")) or any(folder.glob("snapshots/*/*.bin")):
            found.add(f"timm/{folder.name.removeprefix('models--timm--').partition('.')[0]}")
    checkpoints = Path(os.environ.get("TORCH_HOME") or _cache() / "torch", "hub", "checkpoints")
    found |= {f"torchvision/{file.name.rpartition('-')[0]}" for file in checkpoints.glob("*-????????.pth")}
    return sorted(found)


def check_on_machine(weights: str) -> None:
    """Raise RecipeError if `weights` names weights that would have to be downloaded."""
    if os.path.exists(weights):
        return
    there = weights_on_machine()
    if weights in there:
        return
    names = ", ".join([*there, "random", "pixels"])
    raise RecipeError(
        f"the baseline {weights} is not on this machine, and moco compare downloads nothing. On the machine: {names}; "
        "or give the path of a file, an encoder folder or a run"
    )


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
