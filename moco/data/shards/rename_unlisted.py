"""Rename files that have the name of a shard but that `moco pack` has not listed: they may be the user's."""

import hashlib
import itertools
import os
from pathlib import Path
from typing import Any


def rename_unlisted(path: Path) -> Path:
    """Rename a file that pack.json does not list: it may be the user's. Returns its new path."""
    names = (path.with_name(f"{path.name}.other{number or ''}") for number in itertools.count())
    return path.rename(next(one for one in names if not os.path.lexists(one)))


def remove_copies(renamed: dict[Path, Path], shards: dict[str, Any]) -> None:
    """Remove a renamed file that equals the new shard: an earlier call was killed after writing, before listing it."""
    for path, other in renamed.items():
        if other.is_file() and not other.is_symlink():
            with other.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == shards[path.name]["sha256"]:
                other.unlink()
