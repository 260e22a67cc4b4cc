"""The training state, and how a checkpoint saves it.

A checkpoint is one file, `step_00012000.pt`, loadable with `weights_only=True`. It is written under a temporary name,
synced and renamed, so there is never a part of a file under that name. `MANIFEST.json` has its size and SHA-256, which
reveal damage. `moco.weights.read_checkpoint` reads checkpoints.
"""

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from moco.files import remove_temporary_files, write_atomically
from moco.train.keep_checkpoints import (
    choose_kept,
    free_name,
    is_own_file,
    list_existing_files,
    write_checkpoint_manifest,
)
from moco.train.metric_means import MetricWindow
from moco.weights.read_checkpoint import (
    CheckpointError,
    check_intact,
    checkpoint_files,
    checkpoint_name,
    newest_intact,
    read_checkpoint,
)

__all__ = [
    "CheckpointError",
    "Clock",
    "CopiedState",
    "Stateful",
    "TrainState",
    "check_intact",
    "checkpoint_files",
    "checkpoint_name",
    "newest_intact",
    "read_checkpoint",
    "save",
]


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
    """All that the next step depends on. Every field is saved and restored; nothing else may change in training."""

    model: Stateful  # f_q, f_k and the dictionary
    optimizer: Stateful
    clock: Clock
    scaler: Stateful = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))
    window: MetricWindow = field(default_factory=MetricWindow)  # for the next record of the log

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in vars(self).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in vars(self).items():
            if name != "window" or name in state_dict:  # older files have none
                part.load_state_dict(state_dict[name])


@dataclass(frozen=True)
class CopiedState:
    """The content of a `TrainState` at one step. Later steps do not change it."""

    clock: Clock
    content: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        return self.content


def save(
    folder: Path,
    state: TrainState | CopiedState,
    *,
    recipe: str,
    run_id: str | None = None,
    keep: int = 3,
    keep_every: int | None = None,
    ranks: int = 1,
    statistics: dict[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of the clock's step into `folder`, and then remove those that need not be kept.

    Checkpoints of later steps are removed too: the run writes them again. A file that the manifest does not list, or
    lists with other content, may be the user's: it stays, renamed if its name is listed or the new checkpoint's.

    Args:
        recipe: the recipe's JSON, stored in the file.
        run_id: the id of the run, stored in the file.
        keep: number of newest checkpoints to keep.
        keep_every: also keep the checkpoints whose step is a multiple of it.
        ranks: number of ranks of the run.
        statistics: the tensors that differ by rank, from all ranks: W x ... each.

    Raises:
        OSError: the file could not be written. Earlier checkpoints are unchanged.
    """
    remove_temporary_files(folder)
    step = state.clock.step
    path = folder / checkpoint_name(step)
    payload: dict[str, Any] = {"format": 1, "recipe": recipe, "state": state.state_dict()}
    if run_id is not None:
        payload["run_id"] = run_id
    if ranks > 1:
        payload |= {"ranks": ranks, "statistics": statistics or {}}
    _check_room(folder, payload)
    listed = [entry for entry in list_existing_files(folder) if entry["step"] != step]
    if os.path.lexists(path) and not is_own_file(path):
        path.rename(free_name(path))
    digest = write_atomically(path, lambda file: torch.save(payload, file))
    new = {"name": path.name, "step": step, "size": path.stat().st_size, "sha256": digest}
    kept = choose_kept(listed, new, keep=keep, keep_every=keep_every)
    try:
        write_checkpoint_manifest(folder, kept, obsolete=[entry for entry in listed if entry not in kept])
    except OSError:
        with suppress(OSError):  # a file that the manifest does not list would never be removed
            path.unlink()
        raise
    return path


def _check_room(folder: Path, payload: dict[str, Any]) -> None:
    """Raise OSError, before anything is written, if the file system has no room for the file."""
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
