"""P1: kill runs between the steps whose mean is one record of metrics.jsonl."""

import os
from functools import partial
from pathlib import Path
from unittest import mock

from moco.train import pretrain as module
from moco.train.after_step import AfterStep
from moco.train.run_folder import RunFolder
from tests.faults.killed_runs import RECIPE, kills
from tests.faults.matrix import Fault

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


FAULTS = [
    Fault("P1", "SIGKILL between the steps of one record of the log", "metrics.jsonl has the same records",
          "the window of the log is in the checkpoint (`tests/train/test_metrics.py`)", 40, 3,
          partial(kills, kind="small", start=fork, result=records, seed=17)),
]  # fmt: skip
