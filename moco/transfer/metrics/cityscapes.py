"""Average precision of instance segmentation as Cityscapes defines it (https://www.cityscapes-dataset.com/benchmarks).

A prediction is a true positive if its IoU with an object of its class is above the threshold. If several predictions
match one object, only the one with the best score is true. A prediction that matches no object is a false positive. It
is not counted if the share of its pixels that are ignored is above the threshold: pixels of void, of groups, and of
objects below 100 pixels. The curve has a point for each score. AP is the sum over the points of the precision times
half the difference of recall between the two neighbouring points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from moco.data.sources.images import DataError
from moco.transfer.masks import bitmap, bitmap_of_rle
from moco.transfer.metrics.shared import check_one_for_each, mean_of_known
from moco.transfer.predicted_objects import Detections
from moco.transfer.scenes import Rle, Scene, SceneSet

THRESHOLDS = tuple(np.arange(0.5, 1.0, 0.05).tolist())
LEAST_PIXELS = 100  # of an object; smaller ones are ignored


@dataclass(frozen=True)
class CityscapesScores:
    """AP in [0, 1] of each class (rows) at each threshold (columns); NaN for a class without objects."""

    classes: tuple[str, ...]
    ap_by_threshold: Float64[np.ndarray, "K T"]

    @property
    def ap(self) -> float:
        return mean_of_known(self.ap_by_threshold)

    @property
    def ap50(self) -> float:
        return mean_of_known(self.ap_by_threshold[:, 0])


def cityscapes_scores(scenes: SceneSet, detections: Sequence[Detections]) -> CityscapesScores:
    """Score the masks detected in each scene. The objects of a scene must not overlap, as in Cityscapes.

    Raises:
        DataError: the results do not fit the scenes.
    """
    check_one_for_each(detections, scenes)
    images = [_overlaps(scene, found) for scene, found in zip(scenes.scenes, detections, strict=True)]
    ap = np.full((len(scenes.classes), len(THRESHOLDS)), np.nan)
    for label in range(len(scenes.classes)):
        for column, threshold in enumerate(THRESHOLDS):
            matches = [_match(image, label, threshold) for image in images]
            if any(match.objects for match in matches):
                ap[label, column] = _average_precision(matches)
    return CityscapesScores(scenes.classes, ap)


class _Overlaps(NamedTuple):
    """Numbers of pixels of the p predictions and n objects of an image, and of their intersections."""

    common: Int64[np.ndarray, "p n"]  # of each prediction and object
    void: Int64[np.ndarray, "p"]  # void pixels of each prediction
    sizes: Int64[np.ndarray, "p"]  # all pixels of each prediction
    labels: Int64[np.ndarray, "p"]
    scores: Float64[np.ndarray, "p"]
    object_sizes: Int64[np.ndarray, "n"]
    object_labels: Int64[np.ndarray, "n"]
    groups: Bool[np.ndarray, "n"]


class _Matches(NamedTuple):
    """The c predictions and the objects of one class in one image that are counted."""

    true: Bool[np.ndarray, "c"]
    scores: Float64[np.ndarray, "c"]
    objects: int
    missed: int  # objects without a prediction


def _overlaps(scene: Scene, found: Detections) -> _Overlaps:
    """Count the pixels. Predictions without pixels are left out."""
    if len(found) and found.masks is None:
        raise DataError(f"the results of image {scene.id} have no masks")
    if scene.height is None or scene.width is None or scene.objects.masks is None:
        raise DataError(f"image {scene.id} has no masks")
    n, size = len(scene.objects), (scene.height, scene.width)
    owner = np.zeros(size, dtype=np.int64)  # 0: none, 1 to n: an object, n + 1: void
    if isinstance(scene.ignored, Rle):
        owner[bitmap_of_rle(scene.ignored)] = n + 1
    for number, mask in enumerate(scene.objects.masks, 1):
        if mask is not None:
            owner[bitmap(mask, *size)] = number
    rows = [np.bincount(owner[bitmap(mask, *size)], minlength=n + 2) for mask in found.masks or ()]
    counts = np.array(rows, dtype=np.int64).reshape(len(found), n + 2)
    sizes = counts.sum(1)
    full = sizes > 0
    return _Overlaps(
        counts[full, 1 : n + 1], counts[full, n + 1], sizes[full], found.labels[full],
        found.scores[full].astype(np.float64), np.bincount(owner.reshape(-1), minlength=n + 2)[1 : n + 1],
        scene.objects.labels, scene.objects.crowd,
    )  # fmt: skip


def _match(image: _Overlaps, label: int, threshold: float) -> _Matches:
    """Match the predictions of a class with its objects."""
    predicted, present = image.labels == label, image.object_labels == label
    common, scores, sizes = image.common[np.ix_(predicted, present)], image.scores[predicted], image.sizes[predicted]
    object_sizes, groups = image.object_sizes[present], image.groups[present]
    close = common / (sizes[:, None] + object_sizes[None, :] - common) > threshold
    small = object_sizes < LEAST_PIXELS
    counted = ~groups & ~small
    true: list[bool] = []
    kept: list[float] = []
    for column in np.flatnonzero(counted):
        matching = np.sort(scores[close[:, column]])[::-1].tolist()
        true += [rank == 0 for rank in range(len(matching))]  # the best is true, the others false
        kept += matching
    ignored = image.void[predicted] + common[:, groups].sum(1) + common[:, small].sum(1)  # a small group counts twice
    alone = ~close.any(1) & (ignored / sizes <= threshold)
    missed = int((~close[:, counted].any(0)).sum())
    return _Matches(
        np.array([*true, *[False] * int(alone.sum())], dtype=bool), np.array([*kept, *scores[alone]], dtype=np.float64),
        int(counted.sum()), missed,
    )  # fmt: skip


def _average_precision(matches: list[_Matches]) -> float:
    """AP of one class over all images."""
    scores = np.concatenate([match.scores for match in matches])
    order = np.argsort(scores, kind="stable")
    true = np.concatenate([match.true for match in matches])[order]
    _, below = np.unique(scores[order], return_index=True)  # each score is a threshold; number of scores below it
    found = true.sum() - np.concatenate([[0], np.cumsum(true)])[below]
    precision = np.append(found / (len(true) - below), 1.0)
    recall = np.append(found / (true.sum() + sum(match.missed for match in matches)), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(np.dot(precision, (padded[:-2] - padded[2:]) / 2))
