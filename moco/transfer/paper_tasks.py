"""The paper's settings of every task of `moco transfer`, by name. Imports no torch: wrong names are refused at once."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from moco.data.sources.images import DataError
from moco.recipe_error import RecipeError, unknown
from moco.text import escape
from moco.transfer.classification.recipes import classification_recipe
from moco.transfer.detection.recipes import detection_recipe
from moco.transfer.recipe import TransferRecipe
from moco.transfer.segmentation.recipes import segmentation_recipe

OBJECT_FORMATS = ("voc", "cityscapes", "labelme", "yolo", "lvis", "densepose", "coco")  # of annotations
PIXEL_FORMATS = ("voc", "sbd", "cityscapes", "folders")
CLASS_FORMATS = ("cifar", "flowers", "pets", "inaturalist", "folders")


class PaperTask(NamedTuple):
    """What the paper says of a task.

    Attributes:
        recipe: of an architecture and a schedule. It raises RecipeError for unknown ones.
        arch, schedule: the defaults.
        formats: names of the formats of annotations that the task reads.
    """

    recipe: Callable[[str, str], TransferRecipe]
    arch: str
    schedule: str
    formats: tuple[str, ...] = OBJECT_FORMATS


PAPER_TASKS: dict[str, PaperTask] = {
    "detect": PaperTask(partial(detection_recipe, "detect"), "fpn", "24k"),
    "instance": PaperTask(partial(detection_recipe, "instance"), "fpn", "1x"),
    "keypoints": PaperTask(partial(detection_recipe, "keypoints"), "fpn", "2x"),
    "densepose": PaperTask(partial(detection_recipe, "densepose"), "fpn", "s1x"),
    "lvis": PaperTask(partial(detection_recipe, "lvis"), "fpn", "1x"),
    "cityscapes": PaperTask(partial(detection_recipe, "cityscapes"), "fpn", "24k"),
    "classify": PaperTask(classification_recipe, "linear", "imagenet", CLASS_FORMATS),
    "segment": PaperTask(segmentation_recipe, "fcn", "30k", PIXEL_FORMATS),
}


def check_task(
    task: str, arch: str | None, schedule: str | None, settings: Mapping[str, Any], format: str | None
) -> None:
    """Raise RecipeError for an unknown task, architecture, schedule or setting, and DataError for an unknown format."""
    if task not in PAPER_TASKS:
        raise RecipeError(unknown("task", task, list(PAPER_TASKS)))
    of = PAPER_TASKS[task]
    of.recipe(arch or of.arch, schedule or of.schedule).but(None, dict(settings))
    if format is not None:
        check_format(format, of.formats)


def check_format(format: str, formats: Iterable[str]) -> None:
    """Raise DataError for a format of annotations that is not one of `formats`."""
    if format not in (names := list(formats)):
        raise DataError(f"there is no format {escape(format)}: choose from {', '.join(names)}")
