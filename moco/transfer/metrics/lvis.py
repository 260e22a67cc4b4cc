"""LVIS' average precision: each class is scored only on images where its presence or absence is annotated.

Computed by faster-coco-eval. The best 300 detections of an image count, over all classes.
A. Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019, Sec. 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from moco.data.sources.images import DataError
from moco.transfer.detections import Detections
from moco.transfer.metrics.coco import CocoScores, arrays_of, coco_annotations, coco_categories, coco_results, silent
from moco.transfer.optional_packages import require
from moco.transfer.scenes import Scene, SceneSet

MOST = 300  # detections of an image
AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class LvisScores:
    """Precision and recall as COCO's, and how frequent each class is."""

    scores: CocoScores
    frequencies: tuple[str, ...]  # r, c or f of each class

    def stats(self) -> dict[str, float]:
        """AP over all thresholds, at two, by area, and of rare, common and frequent classes."""
        of_coco = self.scores.stats()
        result = {name: of_coco[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
        by_class = self.scores.ap_by_class()
        for frequency in "rcf":
            values = [ap for ap, of in zip(by_class.values(), self.frequencies, strict=True) if of == frequency]
            known = [value for value in values if not np.isnan(value)]
            result[f"AP{frequency}"] = float(np.mean(known)) if known else float("nan")
        return result | {f"AR{MOST}": self.scores.ar()}


def lvis_scores(scenes: SceneSet, detections: Sequence[Detections], *, kind: Literal["bbox", "segm"]) -> LvisScores:
    """Score the detections in each scene of LVIS.

    Raises:
        DataError: results that do not fit the scenes, scenes of another data set.
        ImportError: names the extra that is missing.
    """
    if len(detections) != len(scenes):
        raise DataError(f"{len(detections)} results for {len(scenes)} images: expected one for each")
    if len(scenes.frequencies) != len(scenes.classes):
        raise DataError("the classes have no frequencies (r, c, f): expected scenes in the format of LVIS")
    truth = coco_annotations(scenes, kind)
    if not truth:
        raise DataError("the scenes have no objects: there is nothing to score")
    pairs = zip(scenes.scenes, detections, strict=True)
    found = coco_results(scenes, [_known(scene, _best(one)) for scene, one in pairs], kind)
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
    precision, recall = _run(images, categories, truth, found, kind)
    parts = (np.where(part < 0, np.nan, part) for part in (precision, recall))
    return LvisScores(CocoScores(scenes.classes, AREAS, (MOST,), *parts), scenes.frequencies)


def _best(found: Detections) -> Detections:
    """The MOST detections with the best scores."""
    if len(found) <= MOST:
        return found
    return _chosen(found, np.sort(np.argsort(-found.scores, kind="stable")[:MOST]))


def _known(scene: Scene, found: Detections) -> Detections:
    """The detections of classes annotated as present or absent; others are not scored."""
    return _chosen(found, np.flatnonzero(np.isin(found.labels, [*scene.objects.labels, *scene.negative])))


def _chosen(found: Detections, places: Int64[np.ndarray, "m"]) -> Detections:
    masks = None if found.masks is None else tuple(found.masks[place] for place in places)
    return Detections(found.boxes[places], found.labels[places], found.scores[places], masks)


def _run(images: Any, categories: Any, truth: Any, found: Any, kind: str) -> tuple[np.ndarray, np.ndarray]:
    library = require("faster_coco_eval", task="the score of a detector")
    sets = []
    for annotations in (truth, found):
        one = library.COCO()
        one.dataset = {"images": images, "categories": categories, "annotations": annotations}
        one.createIndex()
        sets.append(one)
    evaluation = library.COCOeval_faster(*sets, kind, print_function=silent, lvis_style=True)
    evaluation.params.catIds = [one["id"] for one in categories]
    evaluation.params.maxDets = [MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    return arrays_of(evaluation.eval, evaluation.params)
