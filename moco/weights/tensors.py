"""A file of weights -> what it holds. Nothing in it is executed: safetensors, or torch.load(weights_only=True)."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from moco.weights.loaded import WeightsError

LEFTOVERS = ("argparse.", "numpy.")  # what training scripts leave beside the tensors without knowing


def read_tensors(path: Path) -> dict[str, Any]:
    """What a file of weights holds: names with tensors, or dictionaries of them and plain values.

    Raises:
        WeightsError: it cannot be read without executing something, or it holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return dict[str, Any](load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise all sorts
        raise WeightsError(_refusal(path, error)) from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a state dict: names with tensors")
    return content


def same_tensors(one: Any, other: Any) -> bool:
    """Whether two contents agree bit for bit: the same names, types, shapes and values, NaN and the sign of 0 too."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and one.shape == other.shape and _bits(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(same_tensors(one[k], other[k]) for k in one)
        )
    if isinstance(one, list | tuple):
        alike = isinstance(other, list | tuple) and len(one) == len(other)
        return alike and all(same_tensors(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)


def _bits(one: Tensor, other: Tensor) -> bool:
    a, b = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(a, b)


def _refusal(path: Path, error: Exception) -> str:
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    lines = str(error).splitlines() or [type(error).__name__]
    reason = f"it wants to run {foreign[1]}" if foreign else lines[0]
    todo = (
        "Expected tensors alone: a safetensors file, or what torch.save(model.state_dict(), ...) writes"
        if foreign is None or not foreign[1].startswith(LEFTOVERS)
        else "A training script left that beside the tensors. If you trust the file, write it anew without: "
        f"torch.save({{'state_dict': torch.load({str(path)!r}, weights_only=False)['state_dict']}}, NEW_FILE)"
    )
    return f"{path} cannot be read as weights ({reason}); nothing in it was executed. {todo}"
