"""A fine-tuning run that has been planned: checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import torch

from moco.device import workers_for
from moco.distributed import on_main, world_size
from moco.recipe_error import RecipeError
from moco.text import plural
from moco.train.checkpoint import Clock
from moco.train.nan_report import allowed_skips
from moco.train.open_run import check_before
from moco.train.options import RunOptions
from moco.train.plan_run import AnyJob, check_device
from moco.train.rank_sync import check_same_images
from moco.train.run_folder import RunFolder
from moco.transfer.recipe import TransferRecipe
from moco.transfer.scene_images import SceneImages, digest_of
from moco.transfer.scenes import SceneSet

MODEL = "model"  # the folder of the fine-tuned model in a run


@dataclass(frozen=True)
class TransferData:
    """Annotated images to train on and to test on, with the same classes."""

    train: SceneSet
    test: SceneSet


@dataclass(frozen=True)
class TransferJob(AnyJob):
    """A planned fine-tuning run. Its clock counts iterations: an epoch of it is one."""

    recipe: TransferRecipe
    data: TransferData


def transfer_folder(path: Path) -> RunFolder:
    """The folder of a fine-tuning run."""
    return RunFolder(path, TransferRecipe, MODEL)


def plan_transfer(
    data: TransferData, out: Path, place: torch.device, options: RunOptions, recipe: TransferRecipe
) -> TransferJob:
    """The planned run. All that can be refused without building a network is refused here. Writes nothing.

    Raises:
        RecipeError: a recipe, device or folder that cannot be used.
    """
    check_device(options.device, place)
    allowed_skips(options.on_nan)  # raises if it is neither stop nor skip:N
    images = SceneImages(data.train)
    batch = recipe.optim.batch_size
    if batch > len(images) or batch % world_size():
        raise RecipeError(
            f"optim.batch_size must be at most the {plural(len(images), 'image')} to train on and divide over "
            f"{plural(world_size(), 'rank')}, got {batch}: set another with --batch-size"
        )
    if recipe.task == "keypoints" and not data.train.keypoint_names:
        raise RecipeError("the annotations have no keypoints: take moco transfer detect, or annotations that have them")
    check_same_images(images)
    fixed = recipe.but(None, {"data": f"{digest_of(data.train)} {digest_of(data.test)}"})
    run, clock = transfer_folder(out), Clock(1, recipe.optim.iterations)
    if on_main():
        check_before(run, fixed, resume=options.resume, overwrite=options.overwrite)
    return TransferJob(images, fixed, clock, place, run, options, workers_for(options.workers), data)
