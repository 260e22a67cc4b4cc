"""The task `cityscapes`: instance segmentation of Cityscapes (Table 6).

The paper's appendix does not describe it. The settings are those of Detectron2's configuration, with one difference:
that configuration starts from a detector trained on COCO, and here only the encoder has initial weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moco.transfer.detection.scene_images import hash_scenes
from moco.transfer.detection.task import Detection
from moco.transfer.metrics.cityscapes import cityscapes_scores
from moco.transfer.models.settings import Task
from moco.transfer.predicted_objects import Detections
from moco.transfer.scenes import SceneSet


@dataclass(frozen=True)
class Cityscapes(Detection):
    """Mask R-CNN, scored by Cityscapes' own AP of masks."""

    name: Task = "cityscapes"
    schedule: str = "24k"
    format: str | None = "cityscapes"

    def digest(self, annotated: SceneSet) -> str:
        """As in other detection tasks, and of the pixels that are not scored."""
        ignored = [b"" if one.ignored is None else one.ignored.runs.tobytes() for one in annotated.scenes]
        return hash_scenes(annotated, more=repr(ignored))

    def columns(self, data: Path, format: str | None) -> tuple[str, ...]:
        return ("AP_mask", "AP50_mask")

    def score_found(self, test: SceneSet, found: Sequence[Detections]) -> dict[str, float]:
        """Cityscapes' AP and AP50 of masks, and AP of each class."""
        result = cityscapes_scores(test, found)
        scores = {"AP_mask": result.ap, "AP50_mask": result.ap50}
        rows = zip(result.classes, result.ap_by_threshold, strict=True)
        scores |= {f"AP_mask_{name}": float(row.mean()) for name, row in rows}
        return {name: 100 * value for name, value in scores.items()}
