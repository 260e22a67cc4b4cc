"""Fine-tune a narrow detector of a task, as `moco transfer` does, and score it."""

from pathlib import Path
from typing import Any

import torch

from moco.encoders import build_headless
from moco.recipe import EncoderSpec
from moco.train.options import RunOptions
from moco.train.reporters import Silent
from moco.train.watchdog import watchdog
from moco.transfer.fine_tune import fine_tune
from moco.transfer.plan_run import plan_transfer
from moco.transfer.task_interface import TransferData, TransferTask
from tests.transfer.scenes_of_lvis_and_cityscapes import shuffled

SETTINGS = {
    "encoder": EncoderSpec(name="resnet18", width=0.125), "optim.batch_size": 4, "optim.lr": 0.08, "optim.warmup": 20,
    "sizes.shorter": (72,), "sizes.eval_shorter": 72, "detector.fpn_channels": 32, "detector.fc_channels": 64,
    "detector.mask_channels": 16, "detector.keypoint_channels": 32, "detector.anchor_sizes": (16, 24, 32, 48, 64),
    "detector.proposals": 60, "detector.rois": 32, "precise_bn": 20, "seed": 1,
}  # fmt: skip


def learn(
    task: TransferTask[Any],
    data: TransferData[Any],
    out: Path,
    *,
    shuffle: bool,
    arch: str = "fpn",
    iterations: int = 500,
    changes: dict[str, Any],
) -> dict[str, float]:
    """The scores of a model with random initial weights, trained with mini-batches of 4 images.

    Args:
        shuffle: each training image has the annotations of the next one.
        changes: to SETTINGS.
    """
    train = shuffled(data.train) if shuffle else data.train
    recipe = task.paper_recipe(arch, str(iterations)).but("learn", SETTINGS | changes)
    torch.manual_seed(0)
    with watchdog(None) as dog:
        options = RunOptions(device="cpu", workers=1)
        job = plan_transfer(task, TransferData(train, data.test), out, torch.device("cpu"), options, recipe)
        return fine_tune(build_headless(recipe.encoder), job, Silent(), dog)
