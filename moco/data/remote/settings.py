"""Settings of remote data, from the environment: they hold for every command and every process that it starts."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from moco.data.sources.images import DataError
from moco.files import cache_folder

CACHE, CACHE_SIZE, PATIENCE = "MOCO_REMOTE_CACHE", "MOCO_REMOTE_CACHE_SIZE", "MOCO_REMOTE_PATIENCE"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class RemoteSettings(NamedTuple):
    """How objects are read."""

    cache: Path  # the folder for copies of objects
    cache_size: int  # [bytes] of all copies together; 0: none are kept
    patience: float  # [s] for which a read is repeated before the run ends


def read_settings() -> RemoteSettings:
    """The settings of this process. Raises DataError for values that are no numbers."""
    folder = os.environ.get(CACHE)
    return RemoteSettings(
        Path(folder) if folder else cache_folder() / "remote",
        parse_size(os.environ.get(CACHE_SIZE) or "0"),
        60 * _minutes(os.environ.get(PATIENCE) or "10"),
    )


def parse_size(text: str) -> int:
    """`20G` -> bytes. Raises DataError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise DataError(f"expected a size such as 500M or 20G for the cache of remote data, got '{text}'")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < 10**6:
        raise DataError(f"{PATIENCE} expects minutes, got '{text}'")
    return minutes
