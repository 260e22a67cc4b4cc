"""P2, D2 to D4: kills inside a save, damaged checkpoints, leftover files, wrong modification times."""

import os
import random
import shutil
import signal
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from moco.files import remove_temporary_files, temporary_name
from moco.train import checkpoint
from moco.train.checkpoint import CheckpointError
from moco.train.keep_checkpoints import prepare_for_resume
from tests.damage import flip_bit
from tests.faults.matrix import Fault, Tally
from tests.faults.step_marked_state import state, step_of

Save = Callable[[Path, int], object]


def ours(folder: Path, step: int) -> None:
    checkpoint.save(folder, state(step), recipe="{}")


def killed_in(save: Save, folder: Path, first: int, seconds: float) -> int:
    """The last step that a child reported as saved before it got SIGKILL; `first` - 1: none."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        step = first
        while True:
            save(folder, step)
            os.write(write, struct.pack("q", step))
            step += 1
    os.close(write)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = b""
    while piece := os.read(read, 65536):
        told += piece
    os.close(read)
    return struct.unpack("q", told[-8:])[0] if told else first - 1


def kills_in_a_save(count: int, folder: Path) -> Tally:
    """The newest that loads is the last one reported as saved, or the one after it, with the content of its step."""
    rng, tally, step = random.Random(2), Tally(), 1
    ours(folder, step)
    for _ in range(count):
        saved = max(step, killed_in(ours, folder, step + 1, rng.uniform(0.002, 0.06)))
        path = checkpoint.newest_intact(folder)
        step = step_of(path) if path is not None else -1
        tally += step in (saved, saved + 1)
    return tally


def damaged(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The content damaged in a random way, and the name of that way."""
    kind = rng.choice(["cut", "bit", "block of zeros", "longer", "blocks exchanged", "empty"])
    at = rng.randrange(len(content))
    if kind == "cut":
        return kind, content[:at]
    if kind == "bit":
        return kind, flip_bit(content, at, rng)
    if kind == "block of zeros":
        return kind, content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
    if kind == "longer":
        return kind, content + bytes(rng.randrange(1, 5000))
    if kind == "blocks exchanged":
        a, b = sorted(rng.sample(range(len(content) // 512), 2))
        one, other = content[a * 512 : (a + 1) * 512], content[b * 512 : (b + 1) * 512]
        return kind, content[: a * 512] + other + content[(a + 1) * 512 : b * 512] + one + content[(b + 1) * 512 :]
    return kind, b""


def keeps_two_intact(folder: Path) -> bool:
    """Whether a run with --keep 2 that resumes from step 2 and saves at step 4 has both of these checkpoints.

    The damaged one of step 3 is renamed if the manifest lists it. Otherwise it stays: it may be the user's.
    """
    place = folder / "past"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("past"))
    unlisted = prepare_for_resume(place, 2)
    checkpoint.save(place, state(4), recipe="{}", keep=2)
    whole = {"step_00000002.pt", "step_00000004.pt"}
    return {path.name for path in place.glob("step_*.pt")} == whole | set(unlisted)


def damaged_checkpoints(count: int, folder: Path) -> Tally:
    """In every third try the manifest does not list the newest, as after a kill just after its rename."""
    rng, tally = random.Random(3), Tally()
    for step in (1, 2):
        ours(folder, step)
    before = (folder / "MANIFEST.json").read_bytes()
    ours(folder, 3)
    content, manifest = (folder / "step_00000003.pt").read_bytes(), (folder / "MANIFEST.json").read_bytes()
    for trial in range(count):
        (folder / "MANIFEST.json").write_bytes(before if trial % 3 == 0 else manifest)
        _, bad = damaged(content, rng)
        (folder / "step_00000003.pt").write_bytes(bad)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            path = checkpoint.newest_intact(folder)
        step, loud = (
            (-1 if path is None else step_of(path)),
            any("step_00000003.pt" in str(one.message) for one in said),
        )
        harmless = bad == content or (trial % 3 == 0 and step == 3)  # a bit that is never read: the content is the same
        tally += harmless or (step == 2 and loud and keeps_two_intact(folder))
    return tally


def leftovers(count: int, folder: Path) -> Tally:
    """Temporary files are removed, a damaged manifest is tolerated, unlisted files stay."""
    rng, tally = random.Random(4), Tally()
    for trial in range(count):
        place = folder / str(trial)
        place.mkdir()
        for step in (1, 2, 3):
            ours(place, step)
        manifest = (place / "MANIFEST.json").read_bytes()
        cut = rng.choice([b"", b"null", b"[1, {}]", b"\xff\xfe", manifest[: rng.randrange(len(manifest))], b"[" * 9999])
        (place / "MANIFEST.json").write_bytes(cut)
        for name in (temporary_name(place).name, "notes.txt", "step_final.pt", "model_00000009.pt"):
            (place / name).write_bytes(b"not a checkpoint")
        newest = checkpoint.newest_intact(place)
        ours(place, 4)
        remove_temporary_files(place)
        names = {path.name for path in place.iterdir()}
        kept = {"notes.txt", "step_final.pt", "model_00000009.pt", *(f"step_0000000{i}.pt" for i in (1, 2, 3, 4))}
        tally += newest is not None and newest.name == "step_00000003.pt" and names == kept | {"MANIFEST.json"}
    return tally


def listed_names(count: int, folder: Path) -> Tally:
    """The user's files with the names of listed checkpoints, of the same size or not, and almost temporary names."""
    rng, tally = random.Random(7), Tally()
    for trial in range(count):
        place = folder / str(trial)
        place.mkdir()
        for step in (1, 2, 3, 4, 5):
            checkpoint.save(place, state(step), recipe="{}", keep=5)
        mine = [place / f"step_0000000{step}.pt" for step in rng.sample(range(1, 6), rng.randrange(1, 5))]
        contents = {rng.randbytes(rng.choice([path.stat().st_size, rng.randrange(999)])) for path in mine}
        digits = f"{rng.randrange(16**16):016x}"
        for path, content in zip([*mine, place / f".tmp-{trial + 1}-{digits}"], [*contents, b"mine"], strict=True):
            path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            newest = checkpoint.newest_intact(place)
        assert newest is not None  # of five, four at most were replaced
        prepare_for_resume(place, step_of(newest))
        for step in range(step_of(newest), 9):
            checkpoint.save(place, state(step), recipe="{}", keep=rng.choice([1, 2]))
        there = {path.read_bytes() for path in place.iterdir()}
        tally += contents | {b"mine"} <= there and step_of(checkpoint.newest_intact(place)) == 8
    return tally


def clocks(count: int, folder: Path) -> Tally:
    """Modification times in any order, all equal, in the future, before 1970."""
    rng, tally = random.Random(5), Tally()
    for step in (8, 9, 10, 11, 12):
        checkpoint.save(folder, state(step), recipe="{}", keep=5)
    for trial in range(count):
        times = [rng.choice([-(10**8), 0, 10**9, 4 * 10**9]) for _ in range(5)] if trial else [10**9] * 5
        for step, when in zip((8, 9, 10, 11, 12), times, strict=True):
            os.utime(folder / f"step_{step:08d}.pt", (when, when))
        path = checkpoint.newest_intact(folder)
        tally += path is not None and step_of(path) == 12
    return tally


def none_left(count: int, folder: Path) -> Tally:
    """All are damaged: an error that names them and says what to do, never a new run."""
    rng, tally = random.Random(6), Tally()
    for step in (1, 2, 3):
        ours(folder, step)
    whole = {path: path.read_bytes() for path in folder.glob("*.pt")}
    for _ in range(count):
        for path, content in whole.items():
            path.write_bytes(content[: rng.randrange(len(content) - 1)])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                checkpoint.newest_intact(folder)
            tally += False
        except CheckpointError as error:
            tally += all(path.name in str(error) for path in whole) and "--overwrite" in str(error)
    return tally


GUARDS = "tests/faults/test_guards.py"
FAULTS = [
    Fault(
        "P2", "SIGKILL inside a save", "the newest or the one before it loads; none is incomplete",
        f"written under a temporary name, renamed when complete (`{GUARDS}`: written in place, kills leave incomplete "
        f"files)", 500, 60,
        kills_in_a_save,
    ),
    Fault(
        "D2", "newest checkpoint truncated, flipped, zeroed", "noticed by its SHA-256; the one before it is used, with "
        "a warning, and is not removed in place of the damaged one later",
        f"hash in the manifest; the file's own checksums if it is not listed yet (`{GUARDS}`: without the hash, a "
        "flipped bit is loaded)", 300, 60, damaged_checkpoints,
    ),
    Fault("D2", "all checkpoints damaged", "an error that names them and says what to do",
          f"`CheckpointError` (`{GUARDS}`: without it the run starts again from step 0)", 20, 3,
          none_left),
    Fault(
        "D3", "leftovers, damaged manifest, foreign files", "removed; tolerated; left alone",
        f"`remove_temporary_files`; invalid entries are ignored (`{GUARDS}`)", 30, 4, leftovers,
    ),
    Fault(
        "D3", "the user's files with the names of listed checkpoints", "not used, not removed; renamed where the run "
        "needs the name",
        "size and SHA-256 are compared before a checkpoint is removed (`tests/train/test_checkpoint.py`: known by name "
        "only, they are removed)", 100, 4, listed_names,
    ),
    Fault("D4", "modification times equal or out of order", "the highest step is the newest",
          f"order by step (`{GUARDS}`: by time, another one is the newest)", 5, 3,
          clocks),
]  # fmt: skip
