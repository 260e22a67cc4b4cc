"""P1: kill `moco transfer`. The parent imports everything once, and forks a child for each try."""

import hashlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from moco.train.run_folder import RunFolder
from moco.transfer.recipe import TransferRecipe
from moco.transfer.transfer import transfer
from tests.faults.killed_runs import kills_in
from tests.faults.matrix import Fault, Tally
from tests.transfer.draw_scenes import make_scenes
from tests.transfer.draw_shapes import make_shapes

STEPS = 6
SMALL = {"encoder.width": 0.125, "encoder.stem": "3x3/2", "optim.batch_size": 2, "precise_bn": 2, "threads": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "detect": SMALL | {
        "sizes.shorter": (48, 56), "sizes.eval_shorter": 48, "detector.fpn_channels": 8, "detector.fc_channels": 16,
        "detector.anchor_sizes": (8, 16, 24, 32, 64), "detector.proposals": 20, "detector.rois": 16,
    },
    "segment": SMALL | {"channels": 8, "crops.side": 49},
}  # fmt: skip


def make_data(task: str, folder: Path) -> None:
    """Ten annotated images; two of them are held out."""
    if task == "detect":
        make_scenes(folder, 10, seed=0)
    else:
        make_shapes(folder, 10, seed=0, size=(64, 48), sides=(0.5, 0.85))


def fork(task: str, images: Path, out: Path, workers: int) -> int:
    """Start or resume the fine-tuning in a forked child."""
    data = images / "annotations.json" if task == "detect" else images
    child = os.fork()
    if child == 0:
        code = 1
        try:
            transfer(
                task, data, out, init={"random": "random"}, model="resnet10", schedule=str(STEPS),
                settings=SETTINGS[task], workers=workers, save_every=2, device="cpu",
            )  # fmt: skip
            code = 0
        finally:
            os._exit(code)
    return child


def ending(out: Path) -> str:
    """A hash of the model, the scores, the pictures and every logged loss."""
    run = out / "random" / "trial_0"
    records = [one for one in RunFolder(run, TransferRecipe, "model").metrics() if "loss" in one]
    assert [one["step"] for one in records] == list(range(1, STEPS + 1)), "every step is logged once"
    losses = [[value for name, value in one.items() if name.startswith("loss")] for one in records]
    digest = hashlib.sha256(json.dumps(losses).encode())
    for name in ("model/model.safetensors", "scores.json", "details.json", "predictions.png"):
        digest.update((run / name).read_bytes())
    digest.update((out / "table.json").read_bytes())
    return digest.hexdigest()


def kills(count: int, folder: Path, task: str) -> Tally:
    make_data(task, folder / "images")
    return kills_in(count, folder, partial(fork, task), result=ending)


EXPECTED = "model, scores, table, picture and each logged loss have the same bits"
GUARD = (
    "the state of a step is in one file, mini-batches and random choices are functions of the step "
    "(`tests/transfer/test_fine_tune.py`, `tests/transfer/test_segment.py`)"
)
FAULTS = [
    Fault("P1", f"SIGKILL anywhere in `moco transfer {task}`", EXPECTED, GUARD, 20, 1, partial(kills, task=task))
    for task in SETTINGS
]
