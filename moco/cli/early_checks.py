"""Checks of arguments that need no torch, whose import takes seconds: wrong ones are refused at once.

The code that uses the arguments makes the same checks again, with the same messages.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moco.recipe import RecipeError, unknown

if TYPE_CHECKING:
    from moco.train.options import RunOptions

FEATURE_FILES = (".npy", ".csv", ".parquet")  # what `moco embed` writes
NETWORKS = (  # of our own
    "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x8d", "vit_small",
    "vit_base", "vit_large", "vit_huge", "vit_conv_small", "vit_conv_base", "vit_micro",
)  # fmt: skip
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def check_weights(weights: str) -> None:
    """Raise WeightsError for a path that does not exist, a file of another kind, or a folder without any weights.

    Names of torchvision and timm are checked later.
    """
    from moco.text import escape
    from moco.weights.errors import WeightsError, no_encoder_in, no_such_weights
    from moco.weights.file_kind import kind_of_no_weights
    from moco.weights.official.released import FAIR_PREFIX, find_released

    if weights.startswith(FAIR_PREFIX):
        find_released(weights)
    elif weights.startswith(("torchvision/", "timm/")):
        return
    elif not os.path.exists(weights):
        raise no_such_weights(weights)
    elif os.path.isdir(weights) and not _may_have_weights(Path(weights)):
        raise no_encoder_in(weights)
    elif os.path.isfile(weights) and (kind := kind_of_no_weights(Path(weights))) is not None:
        raise WeightsError(f"{escape(weights)} cannot be read as weights; nothing in it was executed. It is {kind}")


def _may_have_weights(folder: Path) -> bool:
    """Whether the folder has a file that those of a run, an encoder or a fine-tuned model have."""
    encoders = (folder, folder / "encoder", folder / "model")
    return any((one / "config.json").exists() for one in encoders) or (folder / "checkpoints").is_dir()


def check_sources(*groups: Sequence[str], single: bool = False) -> None:
    """Raise DataError for a folder or list file that does not exist; with `single`, an image is a source too.

    What is quick to open is opened: it must have images.

    Args:
        groups: the sources of each set of images, such as those to train on and those to test on.
    """
    from moco.data.sources.folder import check_source
    from moco.data.sources.open import is_quick_to_open, open_images

    for sources in groups:
        for source in sources:
            check_source(source, single=single)
        if sources and is_quick_to_open(sources):
            open_images(list(sources), single=single)


def check_labels(data: Sequence[str], test: str | None) -> None:
    """Raise DataError for images without labels, if they are quick to open."""
    from moco.data.sources.labels import require_labels
    from moco.data.sources.open import is_quick_to_open
    from moco.data.sources.split import split_of, split_sources

    if is_quick_to_open([*data, *([test] if test else [])]):
        one = data[0] if len(data) == 1 else list(data)
        require_labels((split_sources(one) if test is None else split_of(one, test)).train, "the training images")


def check_annotations(path: Path) -> None:
    """Raise DataError for annotated images that do not exist."""
    from moco.data.sources.images import DataError
    from moco.text import escape

    if not path.exists():
        raise DataError(f"{escape(str(path))} does not exist: expected a folder or file of annotations")


def check_run(run: Path) -> None:
    """Raise RunError for a folder that is not a run."""
    from moco.train.run_folder import check_is_run

    check_is_run(run)


def check_out(
    out: Path, options: "RunOptions", *, data: Sequence[str] = (), images: object = None, init: str | None = None
) -> None:
    """Raise RunError for an --out that a run of any recipe cannot have.

    Args:
        data: the sources of the run's images.
        images: the images; None: they are not known yet.
    """
    from moco.train.existing_folder import check_state
    from moco.train.out_overlap import check_no_overlap, is_in
    from moco.train.overwrite_run import is_interrupted
    from moco.train.run_folder import RunFolder

    if "RANK" in os.environ:  # the launcher has checked it; a rank that is started again must find its run
        return
    if images is not None:
        check_no_overlap(out, images, eval_data=options.eval_data, init=init, overwrite=options.overwrite)
    elif any(is_in(a, b) or is_in(b, a) for a in [os.path.realpath(out)] for b in map(os.path.realpath, data)):
        return  # refused in its own words once the images are known
    if not is_interrupted(run := RunFolder(out)):
        check_state(run, resume=options.resume, overwrite=options.overwrite)


def check_page(out: Path | None) -> None:
    """Raise RecipeError for an HTML file that cannot be written."""
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise RecipeError(f"--out expects a name that ends in .html, got {out}")
    if out is not None and not out.parent.is_dir():
        raise RecipeError(f"{out} cannot be written: the folder {out.parent} does not exist. Create it first")


def check_picture(out: Path, *, overwrite: bool) -> None:
    """Raise RecipeError for a picture that cannot be written or may not be overwritten."""
    from moco.atomic_output import refuse_existing

    if out.suffix.lower() != ".png":
        raise RecipeError(f"--out expects a name that ends in .png, got {out}")
    if not out.parent.is_dir():
        raise RecipeError(f"{out} cannot be written: the folder {out.parent} does not exist. Create it first")
    refuse_existing([out], overwrite=overwrite)


def check_baselines(names: Sequence[str]) -> None:
    """Raise RecipeError for a baseline that is neither a known name nor a path; others are looked up later."""
    for name in names:
        known = name in ("random", "pixels") or name.startswith(("torchvision/", "timm/", "fair:"))
        if not known and not os.path.exists(name):
            raise RecipeError(
                f"there is no baseline {name}: expected random, pixels, torchvision/NAME or timm/NAME on this machine, "
                "or the path of a file, an encoder folder or a run"
            )


def check_device_name(device: str) -> None:
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
