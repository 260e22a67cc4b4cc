"""Resolve the recipe of a run, with its changes, and check that it fits the data and the ranks."""

import math
import os
from typing import Any

import numpy as np
import torch
from torch import nn

from moco import recipes
from moco.data.shards.shards import Shards
from moco.data.sources.band_images import MeasuredBands, measure_bands
from moco.data.sources.images import Images, read_bands
from moco.distributed import world_size
from moco.encoders import fixed_settings
from moco.recipe import Recipe, RecipeError
from moco.recipes.auto import is_auto, scale_of
from moco.train.checkpoint import Clock


def changes_of(arguments: dict[str, Any], settings: dict[str, Any] | None) -> dict[str, Any]:
    """`settings`, overridden by the `arguments` that are not None."""
    return (settings or {}) | {name: value for name, value in arguments.items() if value is not None}


def resolve(
    recipe: str | Recipe,
    images: Images,
    device: torch.device,
    *,
    model: str | nn.Module | None,
    changes: dict[str, Any],
    stored: Recipe | None = None,
    budget: float | None = None,
) -> Recipe:
    """The recipe of the run, with its changes.

    Args:
        stored: the recipe of the run that is resumed, which "auto" then stands for.
        budget: [s]; the run that is resumed has the number of epochs that was chosen for it.
    """
    if isinstance(recipe, Recipe):
        base = recipe
    elif is_auto(recipe) and stored is not None:
        base = stored
    elif is_auto(recipe):
        base = recipes.auto(
            len(images), side=shorter_side(images, bands=changes.get("data.bands") is not None),
            accelerated=device.type != "cpu", epochs=changes.get("optim.epochs"),
            batch_size=changes.get("optim.batch_size"), scale=scale_of(recipe),
        )  # fmt: skip
    else:
        base = recipes.find_recipe(recipe)
    if stored is not None and budget is not None:
        base = base.but(None, {"optim.epochs": stored.optim.epochs})
    if model is not None:
        name = model if isinstance(model, str) else "custom"
        # settings that this network does not have, such as a ResNet's stem, get their neutral value
        others = {f"encoder.{field}": value for field, value in fixed_settings(name).items()}
        changes = {"encoder.name": name} | others | changes
    chosen = base.but(None, changes)
    if chosen.compute.threads is None:  # the number of threads changes the last bits, so a resumed run keeps it
        threads = torch.get_num_threads() if stored is None else stored.compute.threads
        chosen = chosen.but(None, {"compute.threads": threads})
    return chosen


def band_changes(images: Images, stored: Recipe | None = None) -> dict[str, Any]:
    """The changes to a recipe that reads all bands of `images`.

    They are measured, unless the run that is resumed has done that.

    Raises:
        DataError: see `measure_bands`.
    """
    if stored is None or stored.data.bands is None:
        return measure_bands(images).changes()
    data = stored.data
    return MeasuredBands(list(stored.data.bands), list(data.mean), list(data.std)).changes()


def shorter_side(images: Images, *, bands: bool = False) -> int:
    """The median shorter side of a few images [pixels]."""
    some = np.linspace(0, len(images) - 1, min(len(images), 9)).astype(int)
    sides: list[int] = []
    for index in some.tolist():
        try:
            sides.append(min((read_bands(images, index) if bands else images.read(index)).shape[:2]))
        except Exception:  # unreadable: training lists it later
            continue
    return int(np.median(sides)) if sides else 224


def check_order(recipe: Recipe, images: Images) -> None:
    """Raise RecipeError for an order that the images cannot have."""
    if recipe.data.order == "shards" and not isinstance(images, Shards):
        raise RecipeError(
            "data.order=shards is for images in shards, and these are not: pack them first (moco pack DATA --to "
            "FOLDER), or leave data.order=uniform"
        )


def check_jitter(recipe: Recipe) -> None:
    """Raise RecipeError for a change of bands where images are RGB."""
    if recipe.data.bands is None and any(view.jitter.bands for view in recipe.data.views):
        raise RecipeError("jitter.bands is for images with bands: add --bands (bands=True), or set it to 0")


def check_fits(recipe: Recipe, num_images: int) -> None:
    """Raise RecipeError for sizes that do not fit the data or the ranks."""
    batch, size, ranks = recipe.optim.batch_size, recipe.method.size, world_size()
    if num_images < batch:
        raise RecipeError(
            f"a mini-batch has {batch} images (optim.batch_size), and there are only {num_images} in total: add "
            f"images, or use --set optim.batch_size={max(4, num_images // 4)}, or --recipe auto, which fits the data"
        )
    if recipe.method.dictionary == "queue" and size is not None and size + batch > num_images:
        raise RecipeError(
            f"a queue of {size} keys (method.size) and a mini-batch of {batch} need more images than {num_images}: the "
            "queue would contain keys of the queries' own images, which would count as negatives. Expected K + batch "
            f"<= images: --set method.size={1 << (num_images // 4).bit_length() - 1}, or --recipe auto"
        )
    bank, memory = 4 * num_images * recipe.encoder.dim, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if recipe.method.dictionary == "bank" and bank > memory:
        raise RecipeError(
            f"a memory bank of one key for each of {num_images:,} images takes {bank / 1e9:,.0f} GB on every device, "
            f"and this machine has {memory / 1e9:,.0f} GB in total: use a recipe with a queue, whose size does not grow"
        )
    pieces = recipe.optim.accumulate
    if batch % ranks or (recipe.groups > 1 and recipe.groups % ranks):
        raise RecipeError(
            f"batch ({batch}) and bn_groups ({recipe.groups}) must be multiples of the {ranks} ranks: set "
            "optim.batch_size and method.bn_groups, or use another number of ranks"
        )
    if recipe.groups // ranks % pieces:
        raise RecipeError(
            f"optim.accumulate ({pieces}) must divide the number of BN groups of a rank ({recipe.groups // ranks}; "
            f"{recipe.groups} groups on {ranks} ranks)"
        )


def has_zero_learning_rate(recipe: Recipe) -> bool:
    """Whether the recipe sets the learning rate to 0 in all steps, for example to try a run without training."""
    lr = recipe.optim.lr
    return all(getattr(lr, field, 0) == 0 for field in ("value", "start", "stop"))


def check_learns(recipe: Recipe, clock: Clock) -> None:
    """Raise RecipeError if the run is so short that no step has a learning rate above 0, though the recipe has one."""
    lr, each, total = recipe.optim.lr, clock.steps_per_epoch, clock.total_steps
    if has_zero_learning_rate(recipe) or any(lr(step / each, clock.epochs) > 0 for step in range(total)):
        return
    raise RecipeError(
        f"the learning rate is 0 at each of the {total:,} steps, so nothing would be learned: optim.epochs="
        f"{recipe.optim.epochs:g} is too short for the schedule optim.lr ({lr}). Train for more epochs (--epochs "
        f"{max(2, 2 * math.ceil(recipe.optim.epochs))}), or set another schedule"
    )
