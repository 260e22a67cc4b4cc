"""P1: kill runs between the steps whose mean is one record of metrics.jsonl."""

import os
import random
import time
from pathlib import Path
from unittest import mock

from moco.train import pretrain as module
from moco.train.after_step import AfterStep
from moco.train.run_folder import RunFolder
from tests.faults.killed_runs import RECIPE, killed_run, make_images
from tests.faults.matrix import Fault, Tally

STEPS = 5  # in a record, of 18: checkpoints, one of each 2 steps, fall between records
NAMES = ("step", "epoch", "loss", "pretext_top1", "lr", "m")  # not those that are times


def watch(**parts: object) -> AfterStep:
    return AfterStep(**parts | {"log_every": STEPS})  # type: ignore[arg-type]


def fork(images: Path, out: Path, workers: int) -> int:
    """Start or resume the run in a forked child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with mock.patch.object(module, "AfterStep", watch):
                module.pretrain(images, out, recipe=RECIPE, workers=workers, save_every=2, device="cpu")
            code = 0
        finally:
            os._exit(code)
    return child


def records(out: Path) -> list[list[float]]:
    found = [[record[name] for name in NAMES] for record in RunFolder(out).metrics()]
    assert [record[0] for record in found] == [5, 10, 15, 18], "each record once"
    return found


def kills(count: int, folder: Path) -> Tally:
    """Kills count as survived if their run has the same records as the undisturbed one."""
    images, rng, tally = folder / "images", random.Random(17), Tally()
    make_images(images, "small")
    os.waitpid(fork(images, folder / "warm", 0), 0)  # what is compiled or cached the first time
    start = time.monotonic()
    os.waitpid(fork(images, folder / "whole", 0), 0)
    seconds, whole = time.monotonic() - start, records(folder / "whole")
    while tally.tried < count:
        out = folder / f"killed-{tally.tried}"
        came = killed_run(images, out, rng, seconds, fork)
        good = records(out) == whole
        for _ in range(came):
            tally += good
    return tally


FAULTS = [
    Fault("P1", "SIGKILL between the steps of one record of the log", "metrics.jsonl has the same records",
          "the window of the log is in the checkpoint (`tests/train/test_metrics.py`)", 40, 3, kills),
]  # fmt: skip
