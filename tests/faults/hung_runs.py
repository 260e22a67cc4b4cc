"""P4, P8, P9: a thread that dies, a run that hangs, two processes in one folder."""

import ctypes
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest import mock

from moco.data.loader.view_maker import ViewMaker
from moco.method import Contrast
from moco.train import pretrain as pretraining
from moco.train import saving
from moco.train import watchdog as hanging
from moco.train.after_step import AfterStep
from moco.train.pretrain import pretrain
from moco.train.run_folder import RunError
from tests.faults.killed_runs import RECIPE, ending, make_images
from tests.faults.matrix import Fault, Tally

PATIENCE = 0.05  # minutes
LONG = 90.0  # [s] that a planted hang lasts


def run(images: Path, out: Path, workers: int = 0, **options) -> None:
    pretrain(
        images, out, recipe=RECIPE, workers=workers, device="cpu", eval_data=images, eval_every=1, save_every=2,
        **options,
    )  # fmt: skip


def undisturbed(folder: Path) -> tuple[Path, str]:
    images = folder / "images"
    make_images(images, "mixed")
    run(images, folder / "whole")
    return images, ending(folder / "whole")


def in_a_child(work: Callable[[], None], said: Path) -> int:
    """The exit code of `work` in a child process, whose stderr goes to a file."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 2)
            work()
            code = 0
        except RunError as error:
            os.write(2, str(error).encode())
            code = 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying_threads(count: int, folder: Path) -> Tally:
    """An unexpected error in a thread that reads images ends the run with that error, and leaves no thread."""
    rng, tally = random.Random(11), Tally()
    images, whole = undisturbed(folder)
    for trial in range(count):
        out, left = folder / f"run{trial}", [rng.randrange(1, 90)]
        kind = rng.choice([MemoryError, ValueError, KeyError, AssertionError, StopIteration])
        original, lock = ViewMaker._read, threading.Lock()

        def dies(self, *what, original=original, left=left, kind=kind, lock=lock):
            with lock:
                left[0] -= 1
            if not left[0]:
                raise kind("planted")
            return original(self, *what)

        try:
            with mock.patch.object(ViewMaker, "_read", dies):
                run(images, out, workers=rng.choice([1, 2]))
            good = False
        except (kind, RuntimeError) as error:  # StopIteration comes out of a generator as RuntimeError
            good = "planted" in str(error) or kind is StopIteration
        good = good and not any(thread.name.startswith("moco-data") for thread in threading.enumerate())
        run(images, out, workers=rng.choice([0, 1, 2]))
        tally += good and ending(out) == whole
    return tally


def hang(*_: object, **__: object) -> None:
    time.sleep(LONG)


def hang_with_the_gil(*_: object, **__: object) -> None:
    ctypes.PyDLL(None).sleep(int(LONG))  # no other thread of Python can run meanwhile


PLACES = {  # what hangs, and a part of the expected output
    "reading": (mock.patch.object(ViewMaker, "_read", hang), "(in: step)"),
    "the step": (mock.patch.object(Contrast, "forward", hang), "(in: step)"),
    "a checkpoint": (mock.patch.object(saving.checkpoint, "save", hang), "(in: checkpoint)"),
    "a score": (mock.patch.object(pretraining, "make_scorer", return_value=hang), "(in: scores)"),
    "setting up": (mock.patch.object(pretraining, "check_data", hang), "(in: setup)"),
    "the step, with the GIL": (mock.patch.object(Contrast, "follow", hang_with_the_gil), "Timeout"),
}  # fmt: skip


def hangs(count: int, folder: Path) -> Tally:
    """The process ends with code 1 and prints where it hung; then the run can be resumed."""
    tally = Tally()
    images, whole = undisturbed(folder)
    for place, (patch, expected) in list(PLACES.items())[:count]:
        out, said = folder / place.replace(" ", ""), folder / "said"

        def stands_still(out=out, patch=patch) -> None:
            with patch, mock.patch.object(hanging, "GRACE", 2.0):
                run(images, out, workers=1, patience=PATIENCE)

        start = time.monotonic()
        code = in_a_child(stands_still, said)
        text = said.read_text()
        good = code == 1 and time.monotonic() - start < LONG and expected in text and "hang" in text
        run(images, out)
        if not good:
            print(f"{place}: code {code}: {text[:2000]}", file=sys.stderr)
        tally += good and ending(out) == whole
    return tally


def races(count: int, folder: Path) -> Tally:
    """Two processes start in one folder at once: one runs, the other is refused and changes nothing."""
    tally = Tally()
    images, whole = undisturbed(folder)
    for trial in range(count):
        out = folder / f"run{trial}"
        at = time.monotonic() + 0.1

        def begin(out=out, at=at) -> None:
            time.sleep(max(0.0, at - time.monotonic()))
            with mock.patch.object(AfterStep, "__call__", slowly(AfterStep.__call__)):
                run(images, out)

        with ThreadPoolExecutor(2) as pool:
            codes = sorted(pool.map(partial(in_a_child, begin), (folder / "said0", folder / "said1")))
        said = "".join((folder / f"said{i}").read_text() for i in (0, 1))
        good = codes == [0, 2] and "another process is working" in said and ending(out) == whole
        if not good:
            print(f"codes {codes}: {said[:1000]}", file=sys.stderr)
        tally += good
    return tally


def slowly(call: Callable) -> Callable:
    """Slow a run down, so that neither process finishes before the other starts."""

    def later(self, state, metrics) -> None:
        time.sleep(0.02)
        call(self, state, metrics)

    return later


FAULTS = [
    Fault("P4", "an unexpected error in a thread that reads images", "the run ends with that error, no thread is left; "
          "resumed: same bits", "errors of threads are raised when their mini-batch is needed "
          "(`tests/faults/test_guards_of_readers.py`: if ignored, the run continues with wrong views)",
          30, 4, dying_threads),
    Fault("P8", "a hang: reading, step, checkpoint, score, setup", "code 1 and the stack of every thread; resumed: "
          "same bits", "the watchdog, `--patience`; a day later (here: 2 s) if the thread holds the GIL "
          "(`tests/faults/test_guards.py`: without the watchdog the run still hangs)",
          6, 2, hangs),
    Fault("P9", "two processes start in one folder", "one runs; the other is refused",
          "`flock` (`tests/faults/test_guards.py`: without it both run)", 20, 3, races),
]  # fmt: skip
