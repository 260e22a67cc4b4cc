"""All that the next step depends on, and how it gets to disk and back.

A checkpoint is one file, `step_00012000.pt`, loadable with `weights_only=True`. It appears under its name only when it
is whole (written aside, synced, renamed), and `MANIFEST.json` holds its size and SHA-256, so a damaged one is noticed.
"""

import hashlib
import io
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from moco.files import sweep, write_atomically, write_text


class CheckpointError(RuntimeError):
    """No readable checkpoint where one is needed."""


@runtime_checkable
class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass
class Clock:
    """How far the run is. The learning rate, the momentum m and every seed are functions of `step`."""

    steps_per_epoch: int
    total_steps: int
    step: int = 0

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch

    @property
    def epochs(self) -> float:
        return self.total_steps / self.steps_per_epoch

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.step = state_dict["step"]


@dataclass
class TrainState:
    """All that the next step depends on. A field here is saved and restored; nothing else may change in training."""

    model: Stateful  # f_q, f_k and the dictionary
    optimizer: Stateful
    clock: Clock
    scaler: Stateful = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in vars(self).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in vars(self).items():
            part.load_state_dict(state_dict[name])


def save(
    folder: Path,
    state: TrainState,
    *,
    recipe: str,
    keep: int = 3,
    ranks: int = 1,
    statistics: dict[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of the clock's step into `folder`, and drop all but the newest `keep`.

    Args:
        recipe: the recipe's JSON, so that the file says by itself what it is of.
        ranks, statistics: of how many ranks the state is, and which of its tensors differed by rank: W x ... each.
    """
    sweep(folder)
    path = folder / f"step_{state.clock.step:08d}.pt"
    payload: dict[str, Any] = {"format": 1, "recipe": recipe, "state": state.state_dict()}
    if ranks > 1:
        payload |= {"ranks": ranks, "statistics": statistics or {}}
    digest = write_atomically(path, lambda file: torch.save(payload, file))
    entries = [entry for entry in _manifest(folder) if entry["name"] != path.name]
    entries.append({"name": path.name, "step": state.clock.step, "size": path.stat().st_size, "sha256": digest})
    entries.sort(key=lambda entry: entry["step"])
    write_text(folder / "MANIFEST.json", json.dumps(entries[-keep:], indent=1) + "\n")
    for entry in entries[:-keep]:  # only now that the new one is safe
        (folder / entry["name"]).unlink(missing_ok=True)
    return path


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written, or None when there never was one.

    Raises:
        CheckpointError: there are checkpoints, and none of them is whole.
    """
    entries = _manifest(folder)
    listed = {entry["name"] for entry in entries}
    # one that was renamed into place just before a kill is whole, though the manifest does not know it yet
    for path in folder.glob("step_*.pt"):
        if path.name not in listed and path.stem[5:].isdigit():
            entries.append({"name": path.name, "step": int(path.stem[5:]), "size": None, "sha256": None})
    for entry in sorted(entries, key=lambda entry: entry["step"], reverse=True):
        reason = _damage(folder / entry["name"], entry)
        if reason is None:
            return folder / entry["name"]
        warnings.warn(f"checkpoint {entry['name']} is {reason}; taking the one before it", stacklevel=2)
    if entries:
        raise CheckpointError(f"no checkpoint in {folder} is readable: {', '.join(str(e['name']) for e in entries)}")
    return None


def load(file: Path | io.BytesIO) -> dict[str, Any]:
    """What `save` wrote: {"format", "recipe", "state"}, with several ranks also {"ranks", "statistics"}.

    Nothing in the file is executed. Raises CheckpointError.
    """
    try:
        payload = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{file} cannot be read as a checkpoint: {error}") from error
    if not isinstance(payload, dict) or payload.get("format") != 1:
        raise CheckpointError(f"{file} is not a checkpoint of this project (format 1)")
    return payload


def _manifest(folder: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads((folder / "MANIFEST.json").read_text())
        return [
            e for e in entries if {"name", "step", "size", "sha256"} <= e.keys() and Path(e["name"]).name == e["name"]
        ]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def _damage(path: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with the file, or None."""
    if not path.is_file():
        return "missing"
    if entry["sha256"] is None:
        try:
            load(path)
        except CheckpointError:
            return "unreadable"
        return None
    if path.stat().st_size != entry["size"]:
        return f"{path.stat().st_size} bytes long instead of {entry['size']}"
    with path.open("rb") as file:
        intact = hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
    return None if intact else "not what was written (its SHA-256 differs)"
