"""P3: power loss while a checkpoint is saved: build every state that the disk may be in, and read it."""

import itertools
import os
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from moco.train import checkpoint
from moco.train.checkpoint import CheckpointError
from tests.faults.fake_disk import disk
from tests.faults.matrix import Fault, Tally
from tests.faults.step_marked_state import state, step_of


class Operation(NamedTuple):
    """A disk operation."""

    kind: str  # create, write, fsync, rename, unlink
    name: str  # in the folder; of the folder itself ""
    new: str = ""  # of a rename
    place: int = 0
    content: bytes = b""


def recorded(folder: Path, step: int) -> list[Operation]:
    """The operations of one save into `folder`, in order."""
    found: list[Operation] = []

    def on_operation(kind: str, path: str, place: int, content: bytes) -> None:
        names = [os.path.relpath(one, folder) for one in path.split("\n")]
        old, new = (*["" if name == "." else name for name in names], "")[:2]
        found.append(Operation(kind, old, new, place, content))

    with disk(on_operation):
        checkpoint.save(folder, state(step), recipe="{}")
    return found


def afterwards(start: dict[str, bytes], done: list[Operation]) -> Iterator[dict[str, bytes]]:
    """The possible contents of the disk if power fails after the operations `done` on files `start`.

    Bytes are on the disk once their file was synced; created, renamed and removed names once the folder was synced.
    Anything else may be on the disk or not, independently: of bytes none, half, or all.
    """
    settled = max((i for i, one in enumerate(done) if one.kind == "fsync" and not one.name), default=-1)
    loose = [i for i, one in enumerate(done) if one.kind in ("create", "rename", "unlink") and i > settled]
    synced: dict[str, int] = {one.name: i for i, one in enumerate(done) if one.kind == "fsync" and one.name}
    for chosen in itertools.product([True, False], repeat=len(loose)):
        kept = dict(zip(loose, chosen, strict=True))
        for share in (0.0, 0.5, 1.0):
            names = {name: name for name in start}  # on the disk -> the file it stands for
            contents = dict(start)
            for i, one in enumerate(done):
                if one.kind == "create":
                    contents[one.name] = b""
                    names |= {one.name: one.name} if kept.get(i, True) else {}
                elif one.kind == "write":
                    whole = i < synced.get(one.name, -1)
                    content = one.content if whole else one.content[: int(share * len(one.content))]
                    contents[one.name] = contents[one.name][: one.place].ljust(one.place, b"\0") + content
                elif one.kind == "rename" and kept.get(i, True):
                    names.pop(one.name, None)
                    names[one.new] = one.name
                elif one.kind == "unlink" and kept.get(i, True):
                    names.pop(one.name, None)
            yield {name: contents[file] for name, file in names.items()}


def build(folder: Path, found: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in found.items():
        (folder / name).write_bytes(content)


def readable(folder: Path, before: int) -> bool:
    """Whether a checkpoint loads with the content of its step: the one before the save, or a newer one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = checkpoint.newest_intact(folder)
            return path is not None and step_of(path) in (before, before + 1)
    except CheckpointError:
        return False


def power_loss(count: int, folder: Path) -> Tally:
    """At most `count` states of the disk, drawn from all that can result from three saves."""
    tally, found = Tally(), []
    saved = folder / "saved"
    saved.mkdir()
    for step in range(1, 5):
        checkpoint.save(saved, state(step), recipe="{}")
    for step in range(5, 8):
        start = {path.name: path.read_bytes() for path in saved.iterdir()}
        done = recorded(saved, step)
        states = [one for i in range(len(done) + 1) for one in afterwards(start, done[:i])]
        found += [(step - 1, one) for one in _different(states)]
    for before, one in random.Random(0).sample(found, min(count, len(found))):
        build(folder / "built", one)
        tally += readable(folder / "built", before)
    return tally


def _different(states: list[dict[str, bytes]]) -> list[dict[str, bytes]]:
    seen = {tuple(sorted(one.items())): one for one in states}
    return list(seen.values())


def without_fsync(folder: Path) -> bool:
    """Without the guard: whether a save without sync can leave the disk without an intact checkpoint.

    It is the first save, so there is no earlier checkpoint.
    """
    saved, built = folder / "saved", folder / "built"
    saved.mkdir()
    done = [one for one in recorded(saved, 1) if one.kind != "fsync" or not one.name]
    found = _different(list(afterwards({}, done)))
    for one in found:
        build(built, one)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                path = checkpoint.newest_intact(built)
        except CheckpointError:
            return True
        if path is not None and step_of(path) != 1:
            return True
    return False


FAULTS = [
    Fault(
        "P3", "power loss in a save: every order of writes", "this checkpoint or the one before it loads",
        "sync the file, rename it, sync the folder; then the same for the manifest "
        "(`tests/faults/test_guards.py`: without sync, there is a state of the disk without the file)",
        66, 66, power_loss,
    ),
]  # fmt: skip
