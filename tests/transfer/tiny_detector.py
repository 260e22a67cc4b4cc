"""Fine-tune a detector that is small enough to take a second."""

from pathlib import Path

import torch

from moco.encoders import build_headless
from moco.recipe import EncoderSpec
from moco.train.options import RunOptions
from moco.train.reporters import Silent
from moco.train.watchdog import watchdog
from moco.transfer.detection.recipes import detection_recipe
from moco.transfer.fine_tune import fine_tune
from moco.transfer.plan_run import plan_transfer
from moco.transfer.readers.formats import read_scenes
from moco.transfer.recipe import TransferRecipe
from moco.transfer.task_interface import TransferData
from moco.transfer.task_registry import TASKS
from tests.transfer.draw_scenes import make_scenes

SPEC = EncoderSpec(name="resnet18", width=0.125)
TINY = detection_recipe("detect", "fpn", "4").but(
    "tiny",
    {
        "encoder": SPEC, "optim.batch_size": 2, "optim.warmup": 2, "sizes.shorter": (64, 72), "sizes.eval_shorter": 64,
        "detector.fpn_channels": 16, "detector.fc_channels": 16, "detector.anchor_sizes": (8, 16, 32, 64, 128),
        "detector.proposals": 20, "detector.rois": 16, "precise_bn": 2,
    },
)  # fmt: skip
SHORT = TINY.but(None, {"optim.iterations": 1, "optim.at": (), "precise_bn": 0})


def make_data(folder: Path) -> TransferData:
    """Six scenes to train on, and six to test on."""
    train, test = (read_scenes(make_scenes(folder / str(i), 6, seed=i)) for i in (0, 1))
    return TransferData(train, test)


def run(data: TransferData, out: Path, recipe: TransferRecipe = TINY, **options) -> dict[str, float]:
    torch.manual_seed(0)
    encoder = build_headless(recipe.encoder)
    with watchdog(None) as dog:
        chosen = RunOptions(device="cpu", workers=1, **options)
        job = plan_transfer(TASKS["detect"], data, out, torch.device("cpu"), chosen, recipe)
        return fine_tune(encoder, job, Silent(), dog)
