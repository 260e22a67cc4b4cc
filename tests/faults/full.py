"""D1: a disk that is full, broken or read-only, while a run writes its checkpoints and logs."""

import errno
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from moco.train import checkpoint, saving
from moco.train.pretrain import pretrain
from moco.train.reporters import Silent
from tests.faults.disk import disk
from tests.faults.harness import RECIPE, ending, make_images
from tests.faults.matrix import Fault, Tally

ATTEMPTS = 12  # starts of a run until it has ended


class Limits(Silent):
    """From one step to another no file may be longer than `most` bytes: the kernel cuts the write there (EFBIG)."""

    def __init__(self, first: int, last: int, most: int):
        self.first, self.last, self.most = first, last, most

    def live(self, *parts: str) -> None:
        step = int(next(part for part in parts if part.startswith("step ")).split()[1])
        if step in (self.first, self.last):
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.most if step == self.first else hard, hard))


def run(images: Path, out: Path, reporter: Silent | None = None) -> None:
    pretrain(
        images, out, recipe=RECIPE, workers=0, device="cpu", eval_data=images, eval_every=1, save_every=2,
        reporter=reporter,
    )  # fmt: skip


def started(images: Path, out: Path, reporter: Silent | None = None) -> bool:
    """Start the run or go on with it; whether it came to its end. Only an OSError that has a way out may end it."""
    try:
        run(images, out, reporter)
        return True
    except OSError as error:
        if "checkpoint of step" in str(error) and "run the same command again" not in str(error):
            raise
        return False
    finally:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def still_there(out: Path) -> bool:
    """Whether what was saved before can be read."""
    folder = out / "checkpoints"
    return not any(folder.glob("step_*.pt")) or checkpoint.newest_intact(folder) is not None


def made_whole(images: Path, out: Path, whole: str, reporter: Silent | None = None) -> bool:
    """Whether the run, started as often as it takes, ends with the bits of the undisturbed one."""
    for _ in range(ATTEMPTS):
        done = started(images, out, reporter)
        if not still_there(out):
            return False
        if done:
            return ending(out) == whole
        reporter = None
    return False


def undisturbed(folder: Path) -> tuple[Path, str, int]:
    """Images, the ending of a run on them, and how long its checkpoint is [bytes]."""
    images = folder / "images"
    make_images(images, "small")
    run(images, folder / "whole")
    path = checkpoint.newest_intact(folder / "whole" / "checkpoints")
    assert path is not None
    return images, ending(folder / "whole"), path.stat().st_size


def cut_off(count: int, folder: Path) -> Tally:
    """For some steps, from one checkpoint to all that are left, writes fail at a random byte of a checkpoint or log."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    rng, tally = random.Random(7), Tally()
    images, whole, size = undisturbed(folder)
    for trial in range(count):
        first = rng.randrange(1, 18)
        most = rng.randrange(size) if trial % 4 else rng.randrange(600)  # the logs are short
        limits = Limits(first, first + rng.randrange(1, 9), most)
        tally += made_whole(images, folder / f"run{trial}", whole, limits)
    return tally


@contextmanager
def broken(rng: random.Random) -> Iterator[None]:
    """While open, for a stretch of the operations on the disk each of one kind fails."""
    kind = rng.choice(["create", "write", "fsync", "rename", "unlink"])
    number = rng.choice([errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
    first, length, seen = rng.randrange(1, 60), rng.choice([1, 1, 2, 5, 40]), [0]

    def told(what: str, path: str, place: int, content: bytes) -> None:
        if what == kind:
            seen[0] += 1
            if first <= seen[0] < first + length:
                raise OSError(number, f"planted at the {what} of {path.partition(chr(10))[0]}")

    with disk(told):
        yield


def fails_in_part(count: int, folder: Path) -> Tally:
    rng, tally = random.Random(8), Tally()
    images, whole, _ = undisturbed(folder)
    for trial in range(count):
        out = folder / f"run{trial}"
        with broken(rng):
            done = started(images, out)
        good = still_there(out) and (ending(out) == whole if done else made_whole(images, out, whole))
        tally += good
    return tally


def for_ever(count: int, folder: Path) -> Tally:
    """A disk that stays full: the run says so at each checkpoint, and ends after the third; nothing older is lost."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    rng, tally = random.Random(9), Tally()
    images, whole, size = undisturbed(folder)
    for trial in range(count):
        out, first = folder / f"run{trial}", rng.choice([3, 5, 7, 9])
        with mock.patch.object(saving, "FAILING", 0.0):
            ended = not started(images, out, Limits(first, -1, rng.randrange(20_000, size)))
        path = checkpoint.newest_intact(out / "checkpoints")
        kept = path is not None and int(path.stem[5:]) == first - 1
        log = (out / "train.log").read_text()
        tally += ended and kept and log.count("could not be written") == 2 and made_whole(images, out, whole)
    return tally


GUARD = (
    "written aside; a failure is told and tried again; three in a row, over a minute or more (here: at once), end the "
    "run (`tests/faults/test_guards.py`: without that, the first ends it)"
)
FAULTS = [
    Fault("D1", "disk full at byte k, by the kernel's limit", "the run goes on, or ends and goes on later: same bits",
          GUARD, 60, 6, cut_off),
    Fault("D1", "create, write, fsync, rename or unlink fails", "the same; older checkpoints intact", GUARD, 40, 6,
          fails_in_part),
    Fault("D1", "disk full for ever", "ends with an error after the third checkpoint that failed; the one before loads",
          GUARD, 6, 1, for_ever),
]  # fmt: skip
