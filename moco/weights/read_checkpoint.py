"""Find and read the checkpoints of a run. Resume, embed, --init, export, ablate and report all use this module.

A checkpoint is one file, `step_00012000.pt`, and MANIFEST.json beside it holds its size and SHA-256. Files with
other names are neither read nor removed. A file with such a name that the manifest does not list may be the user's: it
is read, and never removed.
"""

import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from moco.files import refuse_special

MANIFEST = "MANIFEST.json"
NAME = re.compile(r"step_([0-9]{8,})\.pt")


class CheckpointError(RuntimeError):
    """There is no readable checkpoint, but one is needed."""


class UnreadableError(CheckpointError):
    """The system does not let us read a checkpoint. It may be intact, so no older one is used in its place."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"{path} cannot be read: {error.strerror or error}. It may be intact, so no older checkpoint is used in "
            "its place. Make it readable (check owner, mode and disk) and run the same command again. If it is lost, "
            "move it out of the folder to use the checkpoint before it"
        )


def checkpoint_name(step: int) -> str:
    return f"step_{step:08d}.pt"


def step_in(name: str) -> int | None:
    """The step of the checkpoint called `name`; None: this is not the name of a checkpoint."""
    found = NAME.fullmatch(name)
    if found is None or len(found[1]) > 18:  # no run has that many steps
        return None
    return int(found[1]) if checkpoint_name(int(found[1])) == name else None


def newest_intact(folder: Path, *, accepts: Callable[[Path], str | None] | None = None) -> Path | None:
    """The newest intact checkpoint; None: there are no checkpoints. Warns of each newer one, and raises as `intact`."""
    found = intact(folder, count=1, accepts=accepts)
    return found[0] if found else None


def intact(folder: Path, *, count: int, accepts: Callable[[Path], str | None] | None = None) -> list[Path]:
    """The newest `count` intact checkpoints, the newest first; []: there are no checkpoints. Warns of each damaged one.

    Args:
        accepts: returns why an undamaged checkpoint cannot be used, or None if it can.

    Raises:
        CheckpointError: all checkpoints are damaged. UnreadableError: the system does not let us read one.
    """
    listed, reasons, found = entries(folder), list[str](), list[Path]()
    for entry in reversed(listed):
        path = folder / entry["name"]
        reason = find_damage(path, entry)
        if reason is None and accepts is not None:
            reason = accepts(path)
        if reason is None:
            found.append(path)
            if len(found) == count:
                break
            continue
        instead = "using the one before it" if count == 1 else "it is left out"
        warnings.warn(f"checkpoint {entry['name']} is {reason}; {instead}", stacklevel=2)
        reasons.append(f"{entry['name']} is {reason}")
    if listed and not found:
        raise CheckpointError(
            f"no checkpoint in {folder} can be used: {'; '.join(reasons)}. Restore one from a backup and "
            "move the files of other runs away, or start again with --overwrite"
        )
    return found


def check_intact(file: Path) -> None:
    """Raise CheckpointError if the checkpoint `file` is damaged.

    Its hash is compared with the manifest beside it. A file without an entry there (a copy elsewhere) is checked by the
    checksums in the file.
    """
    listed = {entry["name"]: entry for entry in manifest(file.parent)}
    reason = find_damage(file, listed.get(file.name, {"step": step_in(file.name), "size": None, "sha256": None}))
    if reason is not None:
        raise CheckpointError(f"the checkpoint {file} is {reason}: use another one, or restore it from a backup")


def read_checkpoint(file: Path | io.BytesIO, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint: {"format", "recipe", "state", "run_id"}; of several ranks also "ranks" and more.

    Nothing in the file is executed. Files of older versions have no "run_id". Raises CheckpointError.

    Args:
        mmap: read the tensors only when they are used.
    """
    import torch  # here, so that listing checkpoints does not wait for it

    from moco.weights.tensors import explain_unreadable

    try:
        payload = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        reason = (
            explain_unreadable(file, error) if isinstance(file, Path) else f"it cannot be read as a checkpoint: {error}"
        )
        raise CheckpointError(reason) from error
    if not isinstance(payload, dict) or payload.get("format") != 1:
        raise CheckpointError(f"{file} is not a checkpoint of this project (format 1)")
    return payload


def entries(folder: Path) -> list[dict[str, Any]]:
    """All checkpoints, sorted by step: those in the manifest, and files that it does not list yet.

    A process can be killed after it has renamed a file into place and before it has listed it. Such a file is intact.
    """
    listed = {
        entry["name"]: entry
        for entry in manifest(folder)
        if not entry.get("going") or (folder / entry["name"]).is_file()
    }
    there = [(path.name, step) for path in checkpoint_files(folder) if (step := step_in(path.name)) is not None]
    found = {name: {"name": name, "step": step, "size": None, "sha256": None} for name, step in there} | listed
    return sorted(found.values(), key=lambda entry: entry["step"])


def find_unlisted(folder: Path) -> list[str]:
    """The names of checkpoints in `folder` that the manifest does not list, by step."""
    return [entry["name"] for entry in entries(folder) if entry["sha256"] is None]


def checkpoint_files(folder: Path) -> list[Path]:
    """The files in `folder` that have the names of checkpoints."""
    return [path for path in folder.glob("step_*.pt") if step_in(path.name) is not None and path.is_file()]


def manifest(folder: Path) -> list[dict[str, Any]]:
    """The valid entries of the manifest; [] without a manifest. Raises UnreadableError.

    The file of an entry with `going` was about to be removed when the manifest was written. It may not exist any more.
    """
    try:
        refuse_special(folder / MANIFEST)
        listed = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return []
    except OSError as error:
        raise UnreadableError(folder / MANIFEST, error) from error
    return [entry for entry in listed if is_valid_entry(entry)] if isinstance(listed, list) else []


def is_valid_entry(entry: Any) -> bool:
    kinds = {"name": str, "step": int, "size": int, "sha256": str}
    if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in kinds.items()):
        return False
    return step_in(entry["name"]) == entry["step"]


def find_damage(path: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with the file, or None. Raises UnreadableError if the system does not let us read it."""
    try:
        refuse_special(path)
        with path.open("rb") as file:
            size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "missing"
    except OSError as error:
        raise UnreadableError(path, error) from error
    if entry["sha256"] is not None:
        if size != entry["size"]:
            return f"{size} bytes long instead of {entry['size']}"
        return None if digest == entry["sha256"] else "damaged (its SHA-256 differs)"
    try:
        return _find_damage_of_unlisted(path, entry["step"])
    except CheckpointError as error:
        return f"unreadable ({error})"
    except (OSError, BadZipFile) as error:
        return f"unreadable ({type(error).__name__})"


def _find_damage_of_unlisted(path: Path, step: int | None) -> str | None:
    """What is wrong with a file that the manifest does not list: it is damaged, or lacks a part."""
    payload = read_checkpoint(path)
    with ZipFile(path) as file:  # torch itself does not check the checksums in its files
        if file.testzip() is not None:
            return "damaged (a checksum differs)"
    return find_missing(payload, step)


def find_other_run(payload: dict[str, Any], run_id: str | None) -> str | None:
    """Why a checkpoint is not of the run with this id, or None. None as an id: not known, so any may be of the run."""
    theirs = payload.get("run_id")
    if run_id is None or (isinstance(theirs, str) and theirs == run_id):
        return None
    return "of another run (its run_id is not that in saved.json. If it is of this run, move saved.json away)"


def find_missing(payload: dict[str, Any], step: int | None) -> str | None:
    """What the content of a checkpoint lacks, or None.

    Args:
        step: the step in the file's name; None: a file of any other name, which may hold any step.
    """
    recipe = payload.get("recipe")
    try:
        readable = isinstance(recipe, str) and isinstance(json.loads(recipe), dict)
    except (ValueError, RecursionError):
        readable = False
    if not readable:
        return "incomplete (it has no recipe)"
    state = payload.get("state")
    for part in ("model", "clock"):
        if not isinstance(state, dict) or not isinstance(state.get(part), dict):
            return f"incomplete (it has no state of the {part})"
    assert isinstance(state, dict)
    holds = state["clock"].get("step")
    if type(holds) is not int:
        return "incomplete (it does not say of which step it is)"
    return None if step in (None, holds) else f"of step {holds}, not of the step in its name"
