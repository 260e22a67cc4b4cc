"""Choose the checkpoints to keep, and list them in the manifest. Files that it does not list are never removed."""

import hashlib
import itertools
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from moco.files import write_text
from moco.weights.read_checkpoint import MANIFEST, UnreadableError, checkpoint_name, find_unlisted, manifest


def choose_kept(
    listed: list[dict[str, Any]], new: dict[str, Any], *, keep: int, keep_every: int | None
) -> list[dict[str, Any]]:
    """The entries to keep: the newest `keep`, and those whose step is a multiple of `keep_every`."""
    earlier = sorted((one for one in listed if one["step"] < new["step"]), key=lambda one: one["step"])
    entries = [*earlier, new]
    marked = [one for one in entries[:-keep] if keep_every is not None and one["step"] % keep_every == 0]
    return [*marked, *entries[-keep:]]


def list_existing_files(folder: Path) -> list[dict[str, Any]]:
    """The manifest's entries whose files exist. Raises OSError if the manifest cannot be read."""
    try:
        listed = manifest(folder)
    except UnreadableError as error:
        raise OSError(str(error)) from error
    found = [entry for entry in listed if (folder / entry["name"]).is_file()]
    return [{key: value for key, value in entry.items() if key != "going"} for entry in found]


def is_own_file(path: Path) -> bool:
    """Whether the manifest beside `path` lists it with its present content. Any other file may be the user's."""
    return any(_fits(path.parent, entry) for entry in manifest(path.parent) if entry["name"] == path.name)


def write_checkpoint_manifest(folder: Path, kept: list[dict[str, Any]], *, obsolete: list[dict[str, Any]]) -> None:
    """Write the manifest with the entries `kept`, then remove the files of `obsolete`.

    The manifest still lists the obsolete ones, marked as "going", so that a kill before their removal leaves no
    unlisted file. A file with other content than listed is damaged or the user's: it is renamed (`free_name`).
    """
    own = [entry for entry in obsolete if _fits(folder, entry)]
    entries = [*({**entry, "going": True} for entry in own), *kept]
    write_text(folder / MANIFEST, json.dumps(entries, indent=1) + "\n")
    for entry in obsolete:
        path = folder / entry["name"]
        with suppress(OSError):  # what cannot be removed is removed after the next checkpoint
            if entry in own:
                path.unlink(missing_ok=True)
            elif os.path.lexists(path):
                path.rename(free_name(path))


def _fits(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether the file of an entry can be read and has the content that is listed there."""
    path = folder / entry["name"]
    try:
        is_same_size = path.is_file() and path.stat().st_size == entry["size"]  # else there is no need to read it
        return is_same_size and _entry_of(path, entry["step"])["sha256"] == entry["sha256"]
    except OSError:
        return False


def free_name(path: Path) -> Path:
    """An unused name for a file that has the name of a new checkpoint: `step_00000100.pt.other`, or with a number."""
    names = (path.with_name(f"{path.name}.other{number or ''}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def prepare_for_resume(folder: Path, step: int) -> list[str]:
    """Prepare `folder` for a run that resumes from its checkpoint of `step`.

    Later checkpoints in the manifest cannot be used. They would count among those that are kept, and push out whole
    ones, so they are renamed (`free_name`). The checkpoint of `step` is listed, if a kill came before that.

    Returns:
        The names of other checkpoints that the manifest does not list. They may be the user's, and are not changed.
    """
    with suppress(OSError):
        later = [entry for entry in manifest(folder) if entry["step"] > step]
        kept = [entry for entry in manifest(folder) if entry["step"] <= step and (folder / entry["name"]).is_file()]
        for entry in later:
            path = folder / entry["name"]
            if os.path.lexists(path):
                path.rename(free_name(path))
        own = folder / checkpoint_name(step)
        new = [_entry_of(own, step)] if own.name in find_unlisted(folder) else []
        if later or new:
            write_text(folder / MANIFEST, json.dumps([*kept, *new], indent=1) + "\n")
    return find_unlisted(folder)


def _entry_of(path: Path, step: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "step": step, "size": path.stat().st_size, "sha256": digest}
