"""Average precision of instance segmentation as Cityscapes defines it (https://www.cityscapes-dataset.com/benchmarks).

A prediction is a true positive if its IoU with an object of its class is above the threshold. If several predictions
match one object, only the one with the best score is true. A prediction that matches no object is false, unless its
share of ignored pixels is above the threshold: void, groups, and objects below 100 pixels. The curve has a point for
each score; AP is the sum of precision times half the difference of recall between the two neighbours of a point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from moco.data.sources.images import DataError
from moco.transfer.detections import Detections
from moco.transfer.masks import bitmap, bitmap_of_rle
from moco.transfer.scenes import Rle, Scene, SceneSet

THRESHOLDS = tuple(np.arange(0.5, 1.0, 0.05).tolist())
LEAST_PIXELS = 100  # smaller objects are ignored


@dataclass(frozen=True)
class CityscapesScores:
    """AP in 0 to 1 of each class (rows) at each threshold (columns); NaN for a class without objects."""

    classes: tuple[str, ...]
    ap_by_threshold: Float64[np.ndarray, "K T"]

    @property
    def ap(self) -> float:
        return _mean(self.ap_by_threshold)

    @property
    def ap50(self) -> float:
        return _mean(self.ap_by_threshold[:, 0])


def cityscapes_scores(scenes: SceneSet, detections: Sequence[Detections]) -> CityscapesScores:
    """Score the masks detected in each scene. Objects must not overlap, as in Cityscapes.

    Raises:
        DataError: results that do not fit the scenes.
    """
    if len(detections) != len(scenes):
        raise DataError(f"{len(detections)} results for {len(scenes)} images: expected one for each")
    images = [_overlaps(scene, found) for scene, found in zip(scenes.scenes, detections, strict=True)]
    ap = np.full((len(scenes.classes), len(THRESHOLDS)), np.nan)
    for label in range(len(scenes.classes)):
        for column, threshold in enumerate(THRESHOLDS):
            parts = [_judge(image, label, threshold) for image in images]
            if any(part.objects for part in parts):
                ap[label, column] = _average_precision(parts)
    return CityscapesScores(scenes.classes, ap)


class _Overlaps(NamedTuple):
    """Pixel counts of the p predictions and n objects of an image, and of their intersections."""

    common: Int64[np.ndarray, "p n"]
    void: Int64[np.ndarray, "p"]  # of each prediction
    sizes: Int64[np.ndarray, "p"]
    labels: Int64[np.ndarray, "p"]
    scores: Float64[np.ndarray, "p"]
    object_sizes: Int64[np.ndarray, "n"]
    object_labels: Int64[np.ndarray, "n"]
    groups: Bool[np.ndarray, "n"]


class _Judged(NamedTuple):
    """The predictions of one class in one image that count."""

    true: Bool[np.ndarray, "c"]
    scores: Float64[np.ndarray, "c"]
    objects: int  # that count
    missed: int  # of them


def _overlaps(scene: Scene, found: Detections) -> _Overlaps:
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
    seen = sizes > 0  # without empty predictions
    return _Overlaps(
        counts[seen, 1 : n + 1], counts[seen, n + 1], sizes[seen], found.labels[seen],
        found.scores[seen].astype(np.float64), np.bincount(owner.reshape(-1), minlength=n + 2)[1 : n + 1],
        scene.objects.labels, scene.objects.crowd,
    )  # fmt: skip


def _judge(image: _Overlaps, label: int, threshold: float) -> _Judged:
    mine, of = image.labels == label, image.object_labels == label
    common, scores, sizes = image.common[np.ix_(mine, of)], image.scores[mine], image.sizes[mine]
    object_sizes, groups = image.object_sizes[of], image.groups[of]
    close = common / (sizes[:, None] + object_sizes[None, :] - common) > threshold
    small = object_sizes < LEAST_PIXELS
    counted = ~groups & ~small
    true: list[bool] = []
    kept: list[float] = []
    for column in np.flatnonzero(counted):
        matching = np.sort(scores[close[:, column]])[::-1].tolist()
        true += [place == 0 for place in range(len(matching))]  # the best is true, the others false
        kept += matching
    ignored = image.void[mine] + common[:, groups].sum(1) + common[:, small].sum(1)  # a small group counts twice
    alone = ~close.any(1) & (ignored / sizes <= threshold)
    missed = int((~close[:, counted].any(0)).sum())
    return _Judged(
        np.array([*true, *[False] * int(alone.sum())], dtype=bool), np.array([*kept, *scores[alone]], dtype=np.float64),
        int(counted.sum()), missed,
    )  # fmt: skip


def _average_precision(parts: list[_Judged]) -> float:
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(scores, kind="stable")
    true = np.concatenate([part.true for part in parts])[order]
    _, first = np.unique(scores[order], return_index=True)  # each score is a threshold; how many are below it
    found = true.sum() - np.concatenate([[0], np.cumsum(true)])[first]
    precision = np.append(found / (len(true) - first), 1.0)
    recall = np.append(found / (true.sum() + sum(part.missed for part in parts)), 0.0)
    around = np.concatenate([recall[:1], recall, [0.0]])
    return float(np.dot(precision, (around[:-2] - around[2:]) / 2))


def _mean(values: Float64[np.ndarray, "..."]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
