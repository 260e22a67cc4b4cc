"""The tasks of `moco transfer`, by name. A new task is a subclass of TransferTask and an entry here."""

from typing import Any

from moco.recipe_error import RecipeError, unknown
from moco.transfer.classification.task import Classification
from moco.transfer.detection.cityscapes import Cityscapes
from moco.transfer.detection.densepose import DensePose
from moco.transfer.detection.lvis import Lvis
from moco.transfer.detection.task import Detection
from moco.transfer.segmentation.task import Segmentation
from moco.transfer.task_interface import TransferTask

TASKS: dict[str, TransferTask[Any]] = {
    "detect": Detection("detect"),
    "instance": Detection("instance", "1x"),
    "keypoints": Detection("keypoints", "2x"),
    "densepose": DensePose(),
    "lvis": Lvis(),
    "cityscapes": Cityscapes(),
    "classify": Classification(),
    "segment": Segmentation(),
}


def task_named(name: str) -> TransferTask[Any]:
    """The task of that name. Raises RecipeError for an unknown name, with similar ones."""
    if name not in TASKS:
        raise RecipeError(unknown("task", name, list(TASKS)))
    return TASKS[name]
