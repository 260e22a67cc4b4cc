"""D1: the disk is full or fails while a run writes its checkpoints and logs."""

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
from tests.faults.fake_disk import disk
from tests.faults.killed_runs import RECIPE, ending, make_images
from tests.faults.matrix import Fault, Tally

ATTEMPTS = 12  # starts until a run must have finished


class Limits(Silent):
    """Between two steps, limits files to `most` bytes: the kernel fails longer writes (EFBIG)."""

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
    """Start or resume the run; returns whether it has finished. Only an OSError that says what to do may end it."""
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
    """Whether the earlier checkpoints can be read."""
    folder = out / "checkpoints"
    return not any(folder.glob("step_*.pt")) or checkpoint.newest_intact(folder) is not None


def resumes_to_same_bits(images: Path, out: Path, whole: str, reporter: Silent | None = None) -> bool:
    """Whether the run, restarted until it finishes, has the same bits as the undisturbed one."""
    for _ in range(ATTEMPTS):
        done = started(images, out, reporter)
        if not still_there(out):
            return False
        if done:
            return ending(out) == whole
        reporter = None
    return False


def undisturbed(folder: Path) -> tuple[Path, str, int]:
    """Images, the final hash of a run on them, and the size of its checkpoint [bytes]."""
    images = folder / "images"
    make_images(images, "small")
    run(images, folder / "whole")
    path = checkpoint.newest_intact(folder / "whole" / "checkpoints")
    assert path is not None
    return images, ending(folder / "whole"), path.stat().st_size


def cut_off(count: int, folder: Path) -> Tally:
    """For a random number of steps, writes fail at a random byte of a checkpoint or log."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    rng, tally = random.Random(7), Tally()
    images, whole, size = undisturbed(folder)
    for trial in range(count):
        first = rng.randrange(1, 18)
        most = rng.randrange(size) if trial % 4 else rng.randrange(600)  # the logs are short
        limits = Limits(first, first + rng.randrange(1, 9), most)
        tally += resumes_to_same_bits(images, folder / f"run{trial}", whole, limits)
    return tally


@contextmanager
def broken(rng: random.Random) -> Iterator[None]:
    """While open, disk operations of one kind fail for some time."""
    kind = rng.choice(["create", "write", "fsync", "rename", "unlink"])
    number = rng.choice([errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
    first, length, seen = rng.randrange(1, 60), rng.choice([1, 1, 2, 5, 40]), [0]

    def on_operation(what: str, path: str, place: int, content: bytes) -> None:
        if what == kind:
            seen[0] += 1
            if first <= seen[0] < first + length:
                raise OSError(number, f"planted at the {what} of {path.partition(chr(10))[0]}")

    with disk(on_operation):
        yield


def fails_in_part(count: int, folder: Path) -> Tally:
    rng, tally = random.Random(8), Tally()
    images, whole, _ = undisturbed(folder)
    for trial in range(count):
        out = folder / f"run{trial}"
        with broken(rng):
            done = started(images, out)
        good = still_there(out) and (ending(out) == whole if done else resumes_to_same_bits(images, out, whole))
        tally += good
    return tally


def stays_full(count: int, folder: Path) -> Tally:
    """The disk stays full: the run reports each failed checkpoint and ends after the third; older ones are intact."""
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
        told = log.count("The run continues, and tries again") == 2 and log.count("3 saves failed in a row") == 1
        tally += ended and kept and told and resumes_to_same_bits(images, out, whole)
    return tally


GUARD = (
    "files are written under a temporary name; a failed save is reported and retried; three in a row, over a minute or "
    "more (here: at once), end the run (`tests/faults/test_guards.py`: without that, the first failure ends it)"
)
FAULTS = [
    Fault("D1", "disk full at byte k, by the kernel's limit", "the run continues, or ends and can be resumed: same "
          "bits",
          GUARD, 60, 6, cut_off),
    Fault("D1", "create, write, fsync, rename or unlink fails", "the same; older checkpoints intact", GUARD, 40, 6,
          fails_in_part),
    Fault("D1", "disk that stays full", "ends with an error after the third failed checkpoint; the one before loads",
          GUARD, 6, 1, stays_full),
]  # fmt: skip
