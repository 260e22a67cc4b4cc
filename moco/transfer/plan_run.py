"""Plan a fine-tuning run: make all checks before anything is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moco.device import workers_for
from moco.distributed import on_main, world_size
from moco.recipe_error import RecipeError
from moco.train.checkpoint import Clock
from moco.train.open_run import check_before_lock
from moco.train.options import RunOptions
from moco.train.plan_run import AnyJob, check_device
from moco.train.rank_sync import check_same_images
from moco.train.run_folder import RunFolder
from moco.train.trackers import check_trackers
from moco.transfer.recipe import TransferRecipe
from moco.transfer.task_interface import TransferData, TransferTask

MODEL = "model"  # the folder of the fine-tuned model in a run


@dataclass(frozen=True)
class TransferJob(AnyJob):
    """A planned fine-tuning run. Its clock counts iterations: each counts as an epoch of one step."""

    recipe: TransferRecipe
    task: TransferTask[Any]
    data: TransferData[Any]


def plan_transfer(
    task: TransferTask[Any],
    data: TransferData[Any],
    out: Path,
    place: torch.device,
    options: RunOptions,
    recipe: TransferRecipe,
) -> TransferJob:
    """Plan the run, and make all checks that need no network. Writes nothing.

    Raises:
        RecipeError: a recipe, device or folder that cannot be used.
    """
    check_device(options.device, place)
    check_trackers(options.trackers)
    data = task.select(recipe, data)
    images = task.images(data.train)
    recipe = task.fit(recipe, data)
    batch = recipe.optim.batch_size
    if batch > len(images) or batch % world_size():
        raise RecipeError(
            f"optim.batch_size must be at most the number of training images ({len(images):,}) and a multiple of the "
            f"number of ranks ({world_size()}), got {batch}: set another with --batch-size"
        )
    check_same_images(images)
    fixed = recipe.but(None, {"data": f"{task.digest(data.train)} {task.digest(data.test)}"})
    run, clock = RunFolder(out, task.recipe, MODEL), Clock(1, recipe.optim.iterations)
    if on_main():
        check_before_lock(run, fixed, resume=options.resume, overwrite=options.overwrite)
    return TransferJob(images, fixed, clock, place, run, options, workers_for(options.workers), task, data)
