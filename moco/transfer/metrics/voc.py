"""Average precision as Pascal VOC defines it: by 11 points (until 2009) or by the area under the curve (later).

A detection is matched with the object of the largest IoU. It is true if this IoU is above the threshold and no better
detection is matched with the same object; otherwise it is false. Difficult objects, and detections that are matched
with them, are not counted.
M. Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010, Sec. 4.2 and 4.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from moco.transfer.metrics.shared import check_one_for_each
from moco.transfer.predicted_objects import Detections
from moco.transfer.scenes import SceneSet

Rule = Literal["07", "area"]
THRESHOLDS = tuple(np.arange(50, 100, 5) / 100)  # of IoU; "AP" is the mean over them (Detectron2; the paper's AP)


@dataclass(frozen=True)
class VocScores:
    """AP in [0, 1] of each class (rows) at each threshold (columns); NaN for a class without counted objects."""

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    ap: Float64[np.ndarray, "K T"]
    curves: tuple[Float64[np.ndarray, "2 _"], ...]  # recall and precision of each class at the first threshold

    def means(self) -> Float64[np.ndarray, "T"]:
        """The mean AP over the classes that have counted objects, at each threshold."""
        counted = ~np.isnan(self.ap).all(1)
        return self.ap[counted].mean(0) if counted.any() else np.full(len(self.thresholds), np.nan)


def voc_scores(
    scenes: SceneSet,
    detections: Sequence[Detections],
    *,
    rule: Rule,
    thresholds: Sequence[float] = THRESHOLDS,
    detectron2_rounding: bool = False,
) -> VocScores:
    """Score the detections in each scene.

    Args:
        detectron2_rounding: compute as Detectron2's evaluator. It rounds scores to 3 decimals and boxes (in float32,
            with the first pixel as 1) to 1 decimal, and keeps the order of equal scores. A class without counted
            objects has AP 0 by rule 07 or without detections, otherwise NaN. Means are `ap.mean(0)`, over all classes.

    Raises:
        DataError: the results do not fit the scenes.
    """
    check_one_for_each(detections, scenes)
    shift = 1.0 if detectron2_rounding else 0.0  # number of the first pixel; if 1, a side is max - min + 1
    rounded = [_rounded(one) for one in detections] if detectron2_rounding else list(detections)
    ap = np.full((len(scenes.classes), len(thresholds)), np.nan)
    curves: list[Float64[np.ndarray, "2 _"]] = []
    for label in range(len(scenes.classes)):
        found = _ClassDetections.of_class(scenes, rounded, label, shift)
        for column, threshold in enumerate(thresholds):
            recall, precision = found.curve(threshold)
            if column == 0:
                curves.append(np.stack([recall, precision]))
            if found.positives:
                ap[label, column] = average_precision(recall, precision, rule)
            elif detectron2_rounding:
                ap[label, column] = 0 if rule == "07" or not len(recall) else np.nan
    return VocScores(scenes.classes, tuple(thresholds), ap, tuple(curves))


def average_precision(recall: Float64[np.ndarray, "n"], precision: Float64[np.ndarray, "n"], rule: Rule) -> float:
    """AP of a curve that is ordered by decreasing score."""
    if rule == "07":  # mean of the best precision at recall of at least 0, 0.1, ..., 1
        best = [precision[recall >= level].max(initial=0) for level in np.arange(0.0, 1.1, 0.1)]
        return float(sum(value / 11 for value in best))
    ends = np.concatenate([[0.0], recall, [1.0]])
    heights = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(heights[::-1])[::-1]
    return float(np.sum(np.diff(ends) * envelope[1:]))


@dataclass(frozen=True)
class _ClassDetections:
    """All detections of one class by decreasing score, each with its best IoU."""

    overlaps: Float64[np.ndarray, "n"]  # with the object that it overlaps most; -inf where the image has none
    objects: Int64[np.ndarray, "n"]  # number of that object in the whole set
    difficult: Bool[np.ndarray, "n"]  # whether that object is difficult
    positives: int  # objects that are not difficult

    @staticmethod
    def of_class(scenes: SceneSet, detections: Sequence[Detections], label: int, shift: float) -> "_ClassDetections":
        scores: list[np.ndarray] = [np.zeros(0)]
        overlaps: list[np.ndarray] = [np.zeros(0)]
        objects: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
        difficult: list[np.ndarray] = [np.zeros(0, dtype=bool)]
        positives = before = 0
        for scene, found in zip(scenes.scenes, detections, strict=True):
            present = np.flatnonzero(scene.objects.labels == label)
            detected = np.flatnonzero(found.labels == label)
            is_difficult = scene.objects.difficult[present]
            scores.append(found.scores[detected])
            if len(present):
                boxes = scene.objects.boxes[present] + np.array([shift, shift, 0, 0])
                overlap = iou(found.boxes[detected].astype(np.float64), boxes, extra=shift)
                best = overlap.argmax(1)
                overlaps.append(overlap[np.arange(len(detected)), best])
                objects.append(before + best)
                difficult.append(is_difficult[best])
            else:
                overlaps.append(np.full(len(detected), -np.inf))
                objects.append(np.full(len(detected), -1))
                difficult.append(np.zeros(len(detected), dtype=bool))
            before += len(present)
            positives += int((~is_difficult).sum())
        order = np.argsort(-np.concatenate(scores), kind="stable")
        best, numbers, hard = (np.concatenate(parts)[order] for parts in (overlaps, objects, difficult))
        return _ClassDetections(best, numbers, hard, positives)

    def curve(self, threshold: float) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
        """Recall and precision after each detection, by decreasing score."""
        matched = self.overlaps > threshold
        counted = matched & ~self.difficult
        first = np.zeros(len(matched), dtype=bool)
        first[np.flatnonzero(counted)[np.unique(self.objects[counted], return_index=True)[1]]] = True
        true = np.cumsum(first)
        false = np.cumsum((counted & ~first) | ~matched)
        with np.errstate(invalid="ignore"):  # no positives: 0 / 0
            recall = true / np.float64(self.positives)
        return recall, true / np.maximum(true + false, np.finfo(np.float64).eps)


def iou(
    one: Float64[np.ndarray, "n 4"], other: Float64[np.ndarray, "m 4"], *, extra: float = 0.0
) -> Float64[np.ndarray, "n m"]:
    """IoU of each pair of boxes. A side is max - min + `extra`; 1 for boxes of whole pixels."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = (high - low + extra).clip(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2] + extra).prod(1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _rounded(found: Detections) -> Detections:
    """Round as Detectron2 does when it writes results: the first pixel is 1, scores have 3 decimals, boxes 1."""
    boxes = found.boxes.astype(np.float32)
    boxes[:, :2] += np.float32(1)
    written = np.array([[float(f"{float(value):.1f}") for value in box] for box in boxes]).reshape(-1, 4)
    scores = np.array([float(f"{float(score):.3f}") for score in found.scores])
    return Detections(written, found.labels, scores)
