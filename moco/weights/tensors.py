"""Read a file of weights without executing anything in it: safetensors, or torch.load(weights_only=True)."""

import errno
import re
import warnings
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

from moco.weights.file_kind import is_safetensors, kind_of
from moco.weights.loaded_weights import WeightsError
from moco.weights.pickle_stand_ins import allow_stand_ins, read_plain_pickle
from moco.weights.validate_content import plain_content

MOST = 20_000  # stored tensors in a file


def read_tensors(path: Path) -> dict[str, Any]:
    """The content of a weights file: tensors by name, or dictionaries of them and plain values.

    A safetensors file is recognised by its first bytes, whatever its name. Objects beside the tensors are read as
    `moco.weights.pickle_stand_ins` says.

    Raises:
        WeightsError: the file is damaged, could only be read by executing code, or has other content.
    """
    try:
        if path.suffix == ".safetensors" or is_safetensors(path):
            return dict[str, Any](load_file(path))
        check_checksums(path)
        if path.suffix in (".pkl", ".pickle") and not is_zipfile(path):
            content = read_plain_pickle(path)
        else:
            with allow_stand_ins(path), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, on kinds of files that are refused here by name
                content = torch.load(path, map_location="cpu", weights_only=True)
        size = path.stat().st_size
    except WeightsError:
        raise
    except Exception as error:  # damaged files raise errors of many kinds
        raise WeightsError(explain_unreadable(path, error)) from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a state dict: tensors by name")
    return plain_content(content, str(path), file_size=size)


def check_checksums(path: Path) -> None:
    """Compare the checksums in a file of torch.save with its contents, which torch.load does not do.

    Files without checksums are accepted: the older format, and files written after
    `torch.serialization.set_crc32_options(False)`, which have zeros in their place.

    Raises:
        WeightsError: a checksum differs, or there are too many tensors. BadZipFile: the file is damaged elsewhere.
    """
    if not is_zipfile(path):
        return
    with ZipFile(path) as file:
        parts = file.infolist()
        if len(parts) > MOST:
            raise WeightsError(
                f"{path} has {len(parts):,} stored tensors, and no network has more than {MOST:,}: it would take "
                "minutes to read. Save only the network's state dict"
            )
        has_checksums = any(part.CRC for part in parts)
        is_plain = sum(part.file_size for part in parts) <= path.stat().st_size  # neither compressed nor overlapping
        damaged = file.testzip() if has_checksums and is_plain else None
    if damaged is not None:
        raise WeightsError(
            f"{path} is damaged (the checksum of {damaged} in it differs): restore it from a backup, or fetch it again"
        )


def same_tensors(one: Any, other: Any) -> bool:
    """Whether two contents agree bit for bit: the same names, types, shapes and values, NaN and the sign of 0 too."""
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and _same_bits(one, other)
        )
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(same_tensors(one[k], other[k]) for k in one)
        )
    if isinstance(one, list | tuple):
        alike = isinstance(other, list | tuple) and len(one) == len(other)
        return alike and all(same_tensors(a, b) for a, b in zip(one, other, strict=True))
    both_nan = one != one and other != other  # equal here, as the bits of tensors are
    return type(one) is type(other) and bool(one == other or both_nan)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    a, b = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(a, b)


def explain_unreadable(path: Path, error: Exception) -> str:
    """Why a file cannot be read: by its first bytes, or else by the error of torch or safetensors."""
    nothing_ran = "nothing in it was executed"
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL comes from mapping a truncated file
        return f"{path} cannot be read as weights ({error.strerror or error}); {nothing_ran}"
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return (
            f"{path} cannot be read as weights (it would execute {foreign[1]}); {nothing_ran}. Save it again where it "
            "was made, with only tensors, strings and numbers: torch.save({'state_dict': model.state_dict()}, NEW_FILE)"
        )
    kind = kind_of(path)
    if path.suffix == ".safetensors" and kind is not None and "torch.save" in kind:
        kind += ". (Its name ends in .safetensors: if it is intact, rename it to .pth)"
    if kind is not None:
        return f"{path} cannot be read as weights; {nothing_ran}. It is {kind}"
    reason = (str(error).splitlines() or [""])[0]
    if not reason or "weights_only" in reason or len(reason) > 200:  # torch would advise to execute it
        reason = "it is damaged, or not a file of torch.save"
    return (
        f"{path} cannot be read as weights ({reason}); {nothing_ran}. Expected a file with only tensors: a safetensors "
        "file, or one of torch.save(model.state_dict(), ...)"
    )
