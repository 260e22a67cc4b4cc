"""LVIS' average precision: each class is scored only on images where its presence or absence is annotated.

Computed by faster-coco-eval. The 300 best detections of an image count, over all classes.
A. Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019, Sec. 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

from moco.data.sources.images import DataError
from moco.transfer.metrics.coco import CocoScores, coco_annotations, coco_categories, coco_results
from moco.transfer.metrics.coco_engines import run_fast
from moco.transfer.metrics.shared import check_one_for_each, mean_of_known
from moco.transfer.predicted_objects import Detections
from moco.transfer.scenes import Scene, SceneSet

MOST = 300  # detections of an image
AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class LvisScores:
    """Precision and recall as for COCO, and the frequency of each class."""

    scores: CocoScores
    frequencies: tuple[str, ...]  # r, c or f of each class

    def stats(self) -> dict[str, float]:
        """AP over all thresholds, at 0.50 and 0.75, by area, and of rare, common and frequent classes."""
        of_coco = self.scores.stats()
        result = {name: of_coco[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
        by_class = self.scores.ap_by_class()
        for frequency in "rcf":
            values = [ap for ap, of in zip(by_class.values(), self.frequencies, strict=True) if of == frequency]
            result[f"AP{frequency}"] = mean_of_known(np.array(values))
        return result | {f"AR{MOST}": self.scores.ar()}


def lvis_scores(scenes: SceneSet, detections: Sequence[Detections], *, kind: Literal["bbox", "segm"]) -> LvisScores:
    """Score the detections in each scene of LVIS.

    Raises:
        DataError: the results do not fit the scenes, or the scenes are not LVIS'.
        ImportError: an optional package is not installed.
    """
    check_one_for_each(detections, scenes)
    if len(scenes.frequencies) != len(scenes.classes):
        raise DataError("the classes have no frequencies (r, c, f): expected scenes in the format of LVIS")
    truth = coco_annotations(scenes, kind)
    if not truth:
        raise DataError("the scenes have no objects: there is nothing to score")
    pairs = zip(scenes.scenes, detections, strict=True)
    results = coco_results(scenes, [_in_annotated_classes(scene, _best(one)) for scene, one in pairs], kind)
    images = [
        {
            "id": number, "height": 1, "width": 1,  # masks have sizes
            "neg_category_ids": [label + 1 for label in scene.negative],
            "not_exhaustive_category_ids": [label + 1 for label in scene.not_exhaustive],
        }
        for number, scene in enumerate(scenes.scenes, 1)
    ]  # fmt: skip
    categories = [
        {**one, "frequency": frequency}
        for one, frequency in zip(coco_categories(scenes), scenes.frequencies, strict=True)
    ]
    curves = run_fast(images, categories, truth, results, kind, lvis_most=MOST)
    known = (np.where(part < 0, np.nan, part) for part in curves)
    return LvisScores(CocoScores(scenes.classes, AREAS, (MOST,), *known), scenes.frequencies)


def _best(found: Detections) -> Detections:
    """The MOST detections with the best scores."""
    if len(found) <= MOST:
        return found
    return _rows(found, np.sort(np.argsort(-found.scores, kind="stable")[:MOST]))


def _in_annotated_classes(scene: Scene, found: Detections) -> Detections:
    """The detections of classes that are annotated as present or absent in the scene; others are not scored."""
    return _rows(found, np.flatnonzero(np.isin(found.labels, [*scene.objects.labels, *scene.negative])))


def _rows(found: Detections, places: Int64[np.ndarray, "m"]) -> Detections:
    masks = None if found.masks is None else tuple(found.masks[place] for place in places)
    return Detections(found.boxes[places], found.labels[places], found.scores[places], masks)
