"""Keep files with the names of shards that `moco pack` has not listed: they may be the user's."""

import hashlib
import itertools
import os
from pathlib import Path
from typing import Any


def set_aside(path: Path) -> Path:
    """Rename a file that pack.json does not list: it may be the user's. Returns its new path."""
    names = (path.with_name(f"{path.name}.other{number or ''}") for number in itertools.count())
    return path.rename(next(one for one in names if not os.path.lexists(one)))


def remove_copies(kept: dict[Path, Path], shards: dict[str, Any]) -> None:
    """Remove a file that was set aside if it is the shard itself: a call was killed before it listed that."""
    for path, aside in kept.items():
        if aside.is_file() and not aside.is_symlink():
            with aside.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == shards[path.name]["sha256"]:
                aside.unlink()
