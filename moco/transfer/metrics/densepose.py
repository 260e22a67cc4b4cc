"""DensePose's average precision: COCO's, with the geodesic point similarity (GPS) in place of IoU.

The GPS of a person and a prediction is the mean of exp(-d^2 / (2 k^2)) over the annotated points. d is the distance on
the body's surface between the annotated and the predicted position, and k a constant of the body part. As in
Detectron2, the 20 best predictions of an image count. Not counted are predictions in an image without annotated
persons, and unmatched predictions whose box has an IoU of 0.8 or more with the box of a person without points.
R. Guler et al., DensePose, CVPR 2018, Sec. 4; Detectron2's project DensePose, DensePoseCocoEval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

from moco.data.sources.images import DataError
from moco.transfer.body_surface import BodySurface
from moco.transfer.metrics.coco import CocoScores, sides_of
from moco.transfer.metrics.shared import check_one_for_each
from moco.transfer.optional_packages import require
from moco.transfer.scenes import BodyPoints, Scene, SceneSet

MOST_PREDICTIONS = 20  # predictions of an image
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0, 1e10), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # [pixels]
SAME_BOX = 0.8  # IoU of a prediction and a person without points
NORMS = np.repeat([0.351, 0.107, 0.126, 0.237, 0.173, 0.142, 0.128, 0.150], [2, 2, 2, 4, 4, 4, 4, 2])  # k of parts 1-24


@dataclass(frozen=True)
class BodyResults:
    """n predicted persons in an image, each with part, U and V of the pixels of its box."""

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, "n"]
    parts: tuple[UInt8[np.ndarray, "_ _"], ...]  # rows x columns of the box in whole pixels; 0: no part
    uv: tuple[Float[np.ndarray, "2 _ _"], ...]  # from 0 to 1


def densepose_scores(scenes: SceneSet, found: Sequence[BodyResults], surface: BodySurface) -> CocoScores:
    """Score the persons predicted in each scene.

    Raises:
        DataError: the results do not fit the scenes.
        ImportError: an optional package is not installed.
    """
    check_one_for_each(found, scenes)
    return score_similarities(
        scenes, [similarities(scene, one, surface) for scene, one in zip(scenes.scenes, found, strict=True)]
    )


def score_similarities(scenes: SceneSet, images: "Sequence[Similarities]") -> CocoScores:
    """Scores from the similarities in each scene. Raises DataError: the scenes have several classes."""
    if len(scenes.classes) != 1:
        raise DataError(f"expected one class, persons; got {', '.join(scenes.classes)}")
    precision = np.full((len(THRESHOLDS), len(RECALLS), 1, len(AREAS), 1), np.nan)
    recall = np.full((len(THRESHOLDS), 1, len(AREAS), 1), np.nan)
    for column, limits in enumerate(AREAS.values()):
        matches = [
            match_predictions(image, limits)
            for image in images
            if image.gps.size or len(image.scores) or len(image.areas)
        ]
        persons = sum(int((~one.persons_ignored).sum()) for one in matches)
        if persons:
            precision[:, :, 0, column, 0], recall[:, 0, column, 0] = _curves(matches, persons)
    return CocoScores(scenes.classes, tuple(AREAS), (MOST_PREDICTIONS,), precision, recall)


def similarity(points: BodyPoints, box: np.ndarray, found: BodyResults, index: int, surface: BodySurface) -> float:
    """The GPS of a person with these points in its `box`, and the prediction `index`."""
    parts, uv = found.parts[index], found.uv[index]
    left, top, right, bottom = found.boxes[index].astype(np.float64).tolist()
    height = parts.shape[0] if bottom - top >= 1 else 0
    width = parts.shape[1] if right - left >= 1 else 0
    x0, y0, across, down = sides_of(box)
    x = (points.x * across / 255 + x0 - left).astype(np.int64)  # towards 0, as Detectron2
    y = (points.y * down / 255 + y0 - top).astype(np.int64)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    if not inside.any():
        return 0.0
    x, y = np.where(inside, x, 0), np.where(inside, y, 0)
    part = np.where(inside, parts[y, x].astype(np.int64), 0)
    u, v = np.floor(uv[:, y, x].astype(np.float64) * 255).clip(0, 255) / 255  # Detectron2 stores bytes
    wanted = surface.nearest(points.part, points.u, points.v)
    distance = surface.geodesics(wanted, surface.nearest(part, u, v))
    return float(np.exp(-(distance**2) / (2 * NORMS[points.part - 1] ** 2)).mean())


class Similarities(NamedTuple):
    """The p predictions of an image by decreasing score, and its g persons."""

    gps: Float64[np.ndarray, "p g"]
    overlaps: Float64[np.ndarray, "p g"]  # IoU of boxes
    scores: Float64[np.ndarray, "p"]
    box_areas: Float64[np.ndarray, "p"]
    areas: Float64[np.ndarray, "g"]
    annotated: Bool[np.ndarray, "g"]
    crowd: Bool[np.ndarray, "g"]


class Matches(NamedTuple):
    """Which predictions are matched with a person, and which are not counted, at each of T thresholds."""

    scores: Float64[np.ndarray, "p"]
    matched: Bool[np.ndarray, "T p"]
    ignored: Bool[np.ndarray, "T p"]
    persons_ignored: Bool[np.ndarray, "g"]


def similarities(scene: Scene, found: BodyResults, surface: BodySurface) -> Similarities:
    """The similarities of all persons and predictions in a scene. Raises DataError: results that do not fit."""
    objects, n = scene.objects, len(found.scores)
    if not len(found.boxes) == len(found.parts) == len(found.uv) == n:
        raise DataError(
            f"the results of image {scene.id} have {len(found.boxes)} boxes, {n} scores, {len(found.parts)} maps of "
            f"parts and {len(found.uv)} of U and V: expected the same number of each"
        )
    points = objects.body_points or (None,) * len(objects)
    order = np.argsort(-found.scores.astype(np.float64), kind="stable")[:MOST_PREDICTIONS].tolist()
    persons = list(zip(points, objects.boxes, strict=True))
    rows = [
        [0.0 if one is None else similarity(one, box, found, place, surface) for one, box in persons]
        for place in order
    ]  # fmt: skip
    boxes = found.boxes[order].astype(np.float64).reshape(-1, 4)
    overlaps = np.zeros((len(order), len(objects)))
    if overlaps.size:
        sides = [np.concatenate([part[:, :2], part[:, 2:] - part[:, :2]], axis=1) for part in (boxes, objects.boxes)]
        overlaps = require("pycocotools.mask", task="the score of dense poses").iou(
            *sides, objects.crowd.astype(int).tolist()
        )
    return Similarities(
        np.array(rows, dtype=np.float64).reshape(len(order), len(objects)), np.asarray(overlaps),
        found.scores[order].astype(np.float64), (boxes[:, 2:] - boxes[:, :2]).prod(1), objects.areas,
        np.array([one is not None for one in points], dtype=bool), objects.crowd,
    )  # fmt: skip


def match_predictions(image: Similarities, limits: tuple[float, float]) -> Matches:
    """COCO's matching: by decreasing score, each prediction is matched with the most similar unmatched person.

    `limits`: areas of the persons that are counted.
    """
    ignored = ~image.annotated | (image.areas < limits[0]) | (image.areas > limits[1])
    order = np.argsort(ignored, kind="stable")  # counted persons first
    gps, overlaps, ignored, crowd = image.gps[:, order], image.overlaps[:, order], ignored[order], image.crowd[order]
    shape = (len(THRESHOLDS), len(image.scores))
    matched, not_counted = np.zeros(shape, dtype=bool), np.full(shape, bool(ignored.all()))
    taken = np.zeros((len(THRESHOLDS), len(order)), dtype=bool)
    for row, threshold in enumerate(THRESHOLDS):
        for place in range(len(image.scores)):
            best = _most_similar(gps[place], float(threshold), taken[row] & ~crowd, ignored)
            if best is not None:
                matched[row, place], not_counted[row, place], taken[row, best] = True, ignored[best], True
    for place in np.flatnonzero(~matched[-1]):  # Detectron2 decides at the last threshold, for all thresholds
        free = np.flatnonzero(~(taken[-1] & ~crowd) & (overlaps[place] >= SAME_BOX))
        if len(free):
            best = free[len(free) - 1 - overlaps[place, free][::-1].argmax()]
            not_counted[:, place] = ignored[best]
            if ignored[best]:
                matched[-1, place] = taken[-1, best] = True
    outside = (image.box_areas < limits[0]) | (image.box_areas > limits[1])
    return Matches(image.scores, matched, not_counted | (~matched & outside), ignored)


def _most_similar(
    gps: Float64[np.ndarray, "g"], threshold: float, taken: Bool[np.ndarray, "g"], ignored: Bool[np.ndarray, "g"]
) -> int | None:
    """The unmatched person with the greatest GPS, of equal ones the last. Ignored persons come after all others.

    None if no GPS reaches the threshold.
    """
    least = min(threshold, 1 - 1e-10)
    for group in (~ignored, ignored):
        free = np.flatnonzero(group & ~taken & (gps >= least) & (gps > 0))
        if len(free):
            return int(free[len(free) - 1 - gps[free][::-1].argmax()])
    return None


def _curves(matches: list[Matches], persons: int) -> tuple[Float64[np.ndarray, "T R"], Float64[np.ndarray, "T"]]:
    """Precision at RECALLS and the greatest recall, at each threshold."""
    order = np.argsort(-np.concatenate([one.scores for one in matches]), kind="stable")
    matched = np.concatenate([one.matched for one in matches], axis=1)[:, order]
    counted = ~np.concatenate([one.ignored for one in matches], axis=1)[:, order]
    true, false = np.cumsum(matched & counted, axis=1), np.cumsum(~matched & counted, axis=1)
    precision, greatest = np.zeros((len(THRESHOLDS), len(RECALLS))), np.zeros(len(THRESHOLDS))
    for row in range(len(THRESHOLDS)):
        if not len(order):
            continue
        recall = true[row] / persons
        envelope = np.maximum.accumulate((true[row] / (false[row] + true[row] + np.spacing(1)))[::-1])[::-1]
        places = np.searchsorted(recall, RECALLS, side="left")
        reached = places < len(recall)
        precision[row, reached] = envelope[places[reached]]
        greatest[row] = recall[-1]
    return precision, greatest
