"""All that the next step depends on, and how it gets to disk and back.

A checkpoint is one file, `step_00012000.pt`, loadable with `weights_only=True`. It appears under its name only when it
is whole (written aside, synced, renamed), and `MANIFEST.json` holds its size and SHA-256, so a damaged one is noticed.
"""

import errno
import hashlib
import io
import json
import shutil
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile, ZipFile

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
    skipped: int = 0  # steps that were not taken, for something in them was not finite

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
    keep_every: int | None = None,
    ranks: int = 1,
    statistics: dict[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of the clock's step into `folder`, and drop older ones once it is safe.

    Later ones go too: they were passed over as damaged, and will be made again.

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
    path = folder / f"step_{step:08d}.pt"
    payload: dict[str, Any] = {"format": 1, "recipe": recipe, "state": state.state_dict()}
    if ranks > 1:
        payload |= {"ranks": ranks, "statistics": statistics or {}}
    _check_room(folder, payload)
    digest = write_atomically(path, lambda file: torch.save(payload, file))
    before = [entry for entry in _entries(folder) if entry["step"] < step and (folder / entry["name"]).is_file()]
    entries = [*before, {"name": path.name, "step": step, "size": path.stat().st_size, "sha256": digest}]
    marked = [entry for entry in entries[:-keep] if keep_every is not None and entry["step"] % keep_every == 0]
    kept = [*marked, *entries[-keep:]]
    write_text(folder / "MANIFEST.json", json.dumps(kept, indent=1) + "\n")
    for old in folder.glob("step_*.pt"):
        if old.stem[5:].isdigit() and old.name not in {entry["name"] for entry in kept}:
            with suppress(OSError):  # the new one is safe; this one goes the next time
                old.unlink()
    return path


def _check_room(folder: Path, payload: dict[str, Any]) -> None:
    """Raises OSError where the file system has no room for the file: it is not begun then."""
    needed, free = int(1.2 * _bytes(payload)), shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"a checkpoint takes {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free")


def _bytes(node: Any) -> int:
    """What the tensors in `node` take."""
    if isinstance(node, Tensor):
        return node.numel() * node.element_size()
    if isinstance(node, dict):
        return sum(map(_bytes, node.values()))
    return sum(map(_bytes, node)) if isinstance(node, list | tuple) else 0


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written, or None when there never was one.

    Raises:
        CheckpointError: there are checkpoints, and none of them is whole.
    """
    entries = _entries(folder)
    for entry in reversed(entries):
        reason = _damage(folder / entry["name"], entry)
        if reason is None:
            return folder / entry["name"]
        warnings.warn(f"checkpoint {entry['name']} is {reason}; taking the one before it", stacklevel=2)
    if entries:
        names = ", ".join(entry["name"] for entry in entries)
        raise CheckpointError(
            f"no checkpoint in {folder} is readable: {names}. Put one back from a copy, or start again with --overwrite"
        )
    return None


def forget_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps than `step`, where the run goes on: they were passed over as damaged.

    They would count among those that are kept, and push out whole ones. What cannot be removed stays.
    """
    later = [entry for entry in _entries(folder) if entry["step"] > step]
    with suppress(OSError):
        for entry in later:
            (folder / entry["name"]).unlink(missing_ok=True)
        if later:
            listed = [entry for entry in _manifest(folder) if entry["step"] <= step]
            write_text(folder / "MANIFEST.json", json.dumps(listed, indent=1) + "\n")


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


def _entries(folder: Path) -> list[dict[str, Any]]:
    """What there is or should be, by step: what the manifest lists, and what it does not know yet.

    A file that was renamed into place just before a kill is whole, though nobody came to list it.
    """
    listed = {entry["name"]: entry for entry in _manifest(folder)}
    there = [path.name for path in folder.glob("step_*.pt") if path.stem[5:].isdigit()]
    found = {name: {"name": name, "step": int(name[5:-3]), "size": None, "sha256": None} for name in there} | listed
    return sorted(found.values(), key=lambda entry: entry["step"])


def _manifest(folder: Path) -> list[dict[str, Any]]:
    """The entries that make sense; none where there is no manifest."""
    try:
        entries = json.loads((folder / "MANIFEST.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [entry for entry in entries if _makes_sense(entry)] if isinstance(entries, list) else []


def _makes_sense(entry: Any) -> bool:
    kinds = {"name": str, "step": int, "size": int, "sha256": str}
    if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in kinds.items()):
        return False
    return entry["name"] == f"step_{entry['step']:08d}.pt" and entry["step"] >= 0


def _damage(path: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with the file, or None."""
    if not path.is_file():
        return "missing"
    try:
        if entry["sha256"] is None:
            load(path)
            with ZipFile(path) as file:  # torch itself does not check the checksums in its files
                return None if file.testzip() is None else "not what was written (a checksum differs)"
        if path.stat().st_size != entry["size"]:
            return f"{path.stat().st_size} bytes long instead of {entry['size']}"
        with path.open("rb") as file:
            intact = hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
    except (OSError, CheckpointError, BadZipFile) as error:
        return f"unreadable ({type(error).__name__})"
    return None if intact else "not what was written (its SHA-256 differs)"
