"""Checks of arguments that need no torch, whose import takes seconds: wrong ones are refused at once.

The code that uses the arguments makes the same checks again, with the same messages.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moco.recipe import RecipeError, unknown

FEATURE_FILES = (".npy", ".csv", ".parquet")  # what `moco embed` writes
NETWORKS = (  # of our own
    "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x8d", "vit_small",
    "vit_base", "vit_large", "vit_huge", "vit_conv_small", "vit_conv_base", "vit_micro",
)  # fmt: skip
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def check_weights(weights: str) -> None:
    """Raise WeightsError for a path that does not exist. Names of torchvision and timm are checked later."""
    from moco.weights.errors import no_such_weights
    from moco.weights.official.released import PREFIX, find_released

    if weights.startswith(PREFIX):
        find_released(weights)
    elif not os.path.exists(weights) and not weights.startswith(("torchvision/", "timm/")):
        raise no_such_weights(weights)


def check_sources(sources: Sequence[str], *, single: bool = False) -> None:
    """Raise DataError for a folder or list file that does not exist; with `single`, an image is a source too."""
    from moco.data.sources.folder import check_source

    for source in sources:
        check_source(source, single=single)


def check_annotations(path: Path) -> None:
    """Raise DataError for annotated images that do not exist."""
    from moco.data.sources.images import DataError
    from moco.text import shown

    if not path.exists():
        raise DataError(f"{shown(str(path))} does not exist: expected a folder or file of annotations")


def check_run(run: Path) -> None:
    """Raise RunError for a folder that is not a run."""
    from moco.train.run_folder import check_is_run

    check_is_run(run)


def check_device(device: str) -> None:
    """Raise RecipeError for a name that is no device on any machine."""
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (":" in device and not number.isdecimal()):
        raise RecipeError(f"--device expects an available device (auto, cpu, cuda, cuda:N or mps), got '{device}'")


def check_features_file(out: Path, *, overwrite: bool) -> None:
    """Raise RecipeError for a file that `moco embed` cannot write or may not overwrite."""
    from moco.atomic_output import feature_files, refuse_existing

    if out.suffix not in FEATURE_FILES:
        raise RecipeError(unknown("kind of file for features", out.suffix or out.name, list(FEATURE_FILES)))
    if not out.parent.is_dir():
        raise RecipeError(f"{out} cannot be written: the folder {out.parent} does not exist. Create it first")
    refuse_existing(feature_files(out), overwrite=overwrite)


def check_recipe(recipe: str, changes: dict[str, Any]) -> None:
    """Raise RecipeError for a recipe that does not exist, or settings that it cannot have."""
    from moco import recipes
    from moco.recipe import Recipe
    from moco.recipes.auto import is_auto

    if is_auto(recipe):
        Recipe.check_settings(changes)
        name = changes.get("encoder.name")
    else:
        name = recipes.find_recipe(recipe).but(None, changes).encoder.name
    if name is not None:
        check_encoder(str(name))


def check_encoder(name: str) -> None:
    """Raise RecipeError for a name that no encoder has; those of torchvision and timm are looked up later."""
    if not name.startswith(("torchvision/", "timm/")) and name not in (*NETWORKS, "custom"):
        raise RecipeError(unknown("encoder", name, [*NETWORKS, "torchvision/NAME", "timm/NAME", "custom"]))
