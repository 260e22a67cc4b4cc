"""The state that the next step depends on, and how a checkpoint saves it.

A checkpoint is one file, `step_00012000.pt`, loadable with `weights_only=True`. It is written under a temporary name,
synced and renamed, so it is never half written. `MANIFEST.json` holds its size and SHA-256, which reveal damage.
`moco.weights.read_checkpoint` reads checkpoints.
"""

import errno
import hashlib
import itertools
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from moco.files import sweep, write_atomically, write_text
from moco.train.metrics import Window
from moco.weights.read_checkpoint import (
    MANIFEST,
    CheckpointError,
    UnreadableError,
    check_intact,
    checkpoint_files,
    manifest,
    name_of,
    newest_intact,
    read_checkpoint,
    unlisted,
)

__all__ = [
    "CheckpointError", "Clock", "Stateful", "TrainState", "check_intact", "checkpoint_files", "name_of",
    "newest_intact", "read_checkpoint", "save", "settle",
]  # fmt: skip


@runtime_checkable
class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass
class Clock:
    """The progress of a run. Learning rate, momentum m and seeds are functions of `step`."""

    steps_per_epoch: int
    total_steps: int
    step: int = 0
    skipped: int = 0  # steps that were not finite

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch

    @property
    def epochs(self) -> float:
        return self.total_steps / self.steps_per_epoch

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.step, self.skipped = state_dict["step"], state_dict.get("skipped", 0)  # older files have no `skipped`


@dataclass
class TrainState:
    """What the next step depends on. Every field is saved and restored; nothing else may change in training."""

    model: Stateful  # f_q, f_k and the dictionary
    optimizer: Stateful
    clock: Clock
    scaler: Stateful = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))
    window: Window = field(default_factory=Window)  # for the next record of the log

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in vars(self).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in vars(self).items():
            if name != "window" or name in state_dict:  # older files have none
                part.load_state_dict(state_dict[name])


def save(
    folder: Path,
    state: TrainState,
    *,
    recipe: str,
    keep: int = 3,
    keep_every: int | None = None,
    ranks: int = 1,
    statistics: dict[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of the clock's step into `folder`, and remove older ones once it is safe.

    Later ones are removed too: they are damaged, and will be made again. A file that the manifest does not list may be
    the user's and stays; one with the name of the new checkpoint is renamed.

    Args:
        recipe: the recipe's JSON, so that the file says by itself what it is of.
        keep: how many stay: the newest,
        keep_every: and besides them those of steps that are a multiple of it.
        ranks, statistics: of how many ranks the state is, and which of its tensors differed by rank: W x ... each.

    Raises:
        OSError: it could not be written; those before it stay as they are.
    """
    sweep(folder)
    step = state.clock.step
    path = folder / name_of(step)
    payload: dict[str, Any] = {"format": 1, "recipe": recipe, "state": state.state_dict()}
    if ranks > 1:
        payload |= {"ranks": ranks, "statistics": statistics or {}}
    _check_room(folder, payload)
    listed = [entry for entry in _listed(folder) if entry["step"] != step]
    if path.name in unlisted(folder):
        path.rename(_free_name(path))
    digest = write_atomically(path, lambda file: torch.save(payload, file))
    new = {"name": path.name, "step": step, "size": path.stat().st_size, "sha256": digest}
    all_ = [*sorted((one for one in listed if one["step"] < step), key=lambda one: one["step"]), new]
    marked = [entry for entry in all_[:-keep] if keep_every is not None and entry["step"] % keep_every == 0]
    kept = [*marked, *all_[-keep:]]
    try:
        _write_manifest(folder, kept, going=[entry for entry in listed if entry not in kept])
    except OSError:
        with suppress(OSError):  # what the manifest does not list would stay for ever
            path.unlink()
        raise
    return path


def _listed(folder: Path) -> list[dict[str, Any]]:
    """What the manifest lists and is there. Raises OSError where the manifest cannot be read."""
    try:
        listed = manifest(folder)
    except UnreadableError as error:
        raise OSError(str(error)) from error
    found = [entry for entry in listed if (folder / entry["name"]).is_file()]
    return [{key: value for key, value in entry.items() if key != "going"} for entry in found]


def _write_manifest(folder: Path, kept: list[dict[str, Any]], *, going: list[dict[str, Any]]) -> None:
    """List `kept`, and remove the files of `going`. They stay listed, so a kill between leaves no unknown file."""
    entries = [*({**entry, "going": True} for entry in going), *kept]
    write_text(folder / MANIFEST, json.dumps(entries, indent=1) + "\n")
    for entry in going:
        with suppress(OSError):  # it is removed with the next checkpoint
            (folder / entry["name"]).unlink(missing_ok=True)


def _free_name(path: Path) -> Path:
    """A name for a file that is in the way: `step_00000100.pt.other`, or one with a number."""
    names = (path.with_name(f"{path.name}.other{number or ''}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def _check_room(folder: Path, payload: dict[str, Any]) -> None:
    """Raises OSError where the file system has no room for the file; nothing is written then."""
    needed, free = int(1.2 * _bytes(payload)), shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"a checkpoint takes {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free")


def _bytes(node: Any) -> int:
    """The bytes of all tensors in `node`."""
    if isinstance(node, Tensor):
        return node.numel() * node.element_size()
    if isinstance(node, dict):
        return sum(map(_bytes, node.values()))
    return sum(map(_bytes, node)) if isinstance(node, list | tuple) else 0


def settle(folder: Path, step: int) -> list[str]:
    """Prepare `folder` for a run that goes on from its checkpoint of `step`.

    Later checkpoints in the manifest are damaged, and are removed: they would count among those that are kept, and push
    out whole ones. The checkpoint of `step` is listed, if a kill came before that. What cannot be removed stays.

    Returns:
        The names of other checkpoints that the manifest does not list. They may be the user's, and are left alone.
    """
    with suppress(OSError):
        later = [entry for entry in manifest(folder) if entry["step"] > step]
        kept = [entry for entry in manifest(folder) if entry["step"] <= step and (folder / entry["name"]).is_file()]
        for entry in later:
            (folder / entry["name"]).unlink(missing_ok=True)
        own = folder / name_of(step)
        new = [_entry_of(own, step)] if own.name in unlisted(folder) else []
        if later or new:
            write_text(folder / MANIFEST, json.dumps([*kept, *new], indent=1) + "\n")
    return unlisted(folder)


def _entry_of(path: Path, step: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "step": step, "size": path.stat().st_size, "sha256": digest}
