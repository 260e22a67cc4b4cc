"""The task `lvis`: instance segmentation of more than a thousand classes, many of them rare (Table 6, appendix A.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moco.recipe_error import RecipeError
from moco.transfer.detection.scene_images import hash_scenes
from moco.transfer.detection.task import Detection
from moco.transfer.metrics.lvis import lvis_scores
from moco.transfer.models.settings import Task
from moco.transfer.predicted_objects import Detections
from moco.transfer.recipe import TransferRecipe
from moco.transfer.scenes import SceneSet
from moco.transfer.task_interface import TransferData

SCORES = ("AP", "AP50", "AP75", "APr", "APc", "APf")


@dataclass(frozen=True)
class Lvis(Detection):
    """Mask R-CNN with repeat factor sampling, and up to 300 detections per image with scores above 1e-4."""

    name: Task = "lvis"
    schedule: str = "1x"
    format: str | None = "lvis"

    def digest(self, annotated: SceneSet) -> str:
        """As in other detection tasks, and of the classes that are absent or annotated in part."""
        federated = [(one.negative, one.not_exhaustive) for one in annotated.scenes]
        return hash_scenes(annotated, more=repr((annotated.frequencies, federated)))

    def columns(self, data: Path, format: str | None) -> tuple[str, ...]:
        return tuple(f"{name}_mask" for name in SCORES)

    def fit(self, recipe: TransferRecipe, data: TransferData[SceneSet]) -> TransferRecipe:
        if not data.train.frequencies or not data.test.frequencies:
            raise RecipeError(
                "the classes have no frequencies (r, c, f): give LVIS' JSON, or take moco transfer instance"
            )
        return recipe

    def score_found(self, test: SceneSet, found: Sequence[Detections]) -> dict[str, float]:
        """LVIS' AP of masks and boxes, over all classes and over rare, common and frequent ones."""
        scores: dict[str, float] = {}
        kinds: dict[str, Literal["bbox", "segm"]] = {"_mask": "segm", "": "bbox"}
        for suffix, kind in kinds.items():
            stats = lvis_scores(test, found, kind=kind).stats()
            scores |= {f"{name}{suffix}": 100 * stats[name] for name in SCORES}
        return scores
