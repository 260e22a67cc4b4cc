"""COCO's average precision and recall of boxes, masks and keypoints.

faster-coco-eval computes them. pycocotools gives the same numbers (tests/transfer/test_coco_metric.py) and is much
slower. All masks are checked in Python before one of the two reads them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from moco.data.sources.images import DataError
from moco.transfer.masks import rle_dict
from moco.transfer.metrics.coco_engines import run_fast, run_reference
from moco.transfer.metrics.shared import check_one_for_each, mean_of_known
from moco.transfer.optional_packages import require
from moco.transfer.predicted_objects import Detections
from moco.transfer.readers.images import size_of
from moco.transfer.scenes import HALF_PIXEL, Scene, SceneSet

MetricKind = Literal["bbox", "segm", "keypoints"]
Engine = Literal["fast", "reference"]
PERSON = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)  # 1000 sigma of COCO's 17 keypoints
NOT_COUNTED = 1e15  # [pixels] area of objects that are ignored: outside of every range


@dataclass(frozen=True)
class CocoScores:
    """Precision and recall by IoU threshold, class, range of areas and number of detections; NaN without objects."""

    classes: tuple[str, ...]
    areas: tuple[str, ...]  # all, small, medium, large
    most: tuple[int, ...]  # limits on the number of detections per image
    precision: Float64[np.ndarray, "T R K A M"]  # at thresholds 0.50 to 0.95 and recalls 0 to 1
    recall: Float64[np.ndarray, "T K A M"]

    def ap(self, *, area: str = "all", threshold: float | None = None) -> float:
        """Average precision in [0, 1]: the mean over thresholds (or at one), recalls and classes."""
        return mean_of_known(self._at(self.precision, area, threshold, self.most[-1]))

    def ar(self, *, area: str = "all", threshold: float | None = None, most: int | None = None) -> float:
        """Average recall in [0, 1]: the mean of the largest recall over thresholds and classes."""
        return mean_of_known(self._at(self.recall, area, threshold, most or self.most[-1]))

    def ap_by_class(self) -> dict[str, float]:
        values = self.precision[..., 0, -1]
        return {name: mean_of_known(values[..., index]) for index, name in enumerate(self.classes)}

    def stats(self) -> dict[str, float]:
        """COCO's own summary: 12 numbers of boxes and masks, 10 of keypoints."""
        result = {"AP": self.ap(), "AP50": self.ap(threshold=0.5), "AP75": self.ap(threshold=0.75)}
        result |= {f"AP{area[0]}": self.ap(area=area) for area in self.areas[1:]}
        if len(self.most) > 1:
            result |= {f"AR{most}": self.ar(most=most) for most in self.most}
        else:
            result |= {"AR": self.ar(), "AR50": self.ar(threshold=0.5), "AR75": self.ar(threshold=0.75)}
        return result | {f"AR{area[0]}": self.ar(area=area) for area in self.areas[1:]}

    def _at(self, values: np.ndarray, area: str, threshold: float | None, most: int) -> np.ndarray:
        chosen = values[..., self.areas.index(area), self.most.index(most)]
        return chosen if threshold is None else chosen[[round((threshold - 0.5) / 0.05)]]


def coco_scores(
    scenes: SceneSet,
    detections: Sequence[Detections],
    *,
    kind: MetricKind,
    engine: Engine = "fast",
    sigmas: Sequence[float] | None = None,
) -> CocoScores:
    """Score the detections in each scene.

    Crowds are ignored as in COCO. So are difficult objects and, for masks, objects without a mask.

    Args:
        sigmas: of the keypoints. Default: COCO's for 17 keypoints, the mean of COCO's for other numbers.

    Raises:
        DataError: the results do not fit the scenes.
        ImportError: an optional package is not installed.
    """
    check_one_for_each(detections, scenes)
    truth = coco_annotations(scenes, kind)
    results = coco_results(scenes, detections, kind)
    areas = ("all", "medium", "large") if kind == "keypoints" else ("all", "small", "medium", "large")
    most = (20,) if kind == "keypoints" else (1, 10, 100)
    if not truth or not scenes.classes:
        return _without_objects(scenes.classes, areas, most)
    run = run_fast if engine == "fast" else run_reference
    images = [{"id": number, "height": 1, "width": 1} for number in range(1, len(scenes) + 1)]  # masks have sizes
    sigmas_of_kind = _sigmas(scenes, sigmas) if kind == "keypoints" else None
    curves = run(images, coco_categories(scenes), truth, results, kind, sigmas=sigmas_of_kind)
    return CocoScores(scenes.classes, areas, most, *(np.where(part < 0, np.nan, part) for part in curves))


def coco_annotations(scenes: SceneSet, kind: MetricKind) -> list[dict[str, Any]]:
    """The objects in COCO's format, with ids from 1: the evaluation treats a match with id 0 as no match."""
    result: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes.scenes, 1):
        objects = scene.objects
        for index in range(len(objects)):
            area = NOT_COUNTED if objects.difficult[index] else float(objects.areas[index])
            entry = {
                "id": len(result) + 1, "image_id": number, "category_id": int(objects.labels[index]) + 1,
                "bbox": sides_of(objects.boxes[index]), "area": area, "iscrowd": int(objects.crowd[index]),
            }  # fmt: skip
            if kind == "segm":
                entry |= _segmentation(scene, index)
            if kind == "keypoints":
                points = np.zeros((0, 3)) if objects.keypoints is None else objects.keypoints[index]
                entry |= {"keypoints": points.reshape(-1).tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
            result.append(entry)
    return result


def coco_results(scenes: SceneSet, detections: Sequence[Detections], kind: MetricKind) -> list[dict[str, Any]]:
    """The detections in the format of the official evaluation, with area and box computed as it does."""
    result: list[dict[str, Any]] = []
    for number, (scene, found) in enumerate(zip(scenes.scenes, detections, strict=True), 1):
        _check(scene, found, kind, len(scenes.classes))
        for index in range(len(found)):
            entry: dict[str, Any] = {
                "id": len(result) + 1, "image_id": number, "category_id": int(found.labels[index]) + 1,
                "score": float(found.scores[index]), "iscrowd": 0,
            }  # fmt: skip
            if kind == "bbox":
                x0, y0, x1, y1 = found.boxes[index].astype(np.float64).tolist()
                entry |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            elif kind == "segm":
                assert found.masks is not None  # _check
                coco = require("pycocotools.mask", task="a mask")
                mask = rle_dict(found.masks[index], *_size(scene))
                entry |= {"segmentation": mask, "area": float(coco.area(mask)), "bbox": coco.toBbox(mask).tolist()}
            else:
                assert found.keypoints is not None  # _check
                points = found.keypoints[index].astype(np.float64) - np.array([HALF_PIXEL, HALF_PIXEL, 0])
                (left, top), (right, bottom) = points[:, :2].min(0).tolist(), points[:, :2].max(0).tolist()
                entry |= {"keypoints": points.reshape(-1).tolist(), "area": (right - left) * (bottom - top)}
                entry |= {"bbox": [left, top, right - left, bottom - top]}
            result.append(entry)
    return result


def _check(scene: Scene, found: Detections, kind: MetricKind, classes: int) -> None:
    """Raise DataError if the results do not fit the scene."""
    missing = {"segm": found.masks is None, "keypoints": found.keypoints is None}.get(kind, False)
    if missing and len(found):
        raise DataError(f"the results of image {scene.id} have no {'masks' if kind == 'segm' else kind}")
    if not np.isfinite(found.scores).all() or not np.isfinite(found.boxes).all():
        raise DataError(f"the results of image {scene.id} have numbers that are not finite")
    if len(found) and (found.labels.min() < 0 or found.labels.max() >= classes):
        raise DataError(
            f"the results of image {scene.id} have the class {found.labels.max()}; expected 0..{classes - 1}"
        )


def _segmentation(scene: Scene, index: int) -> dict[str, Any]:
    """The mask of an object. An object without one gets its box, marked as ignored."""
    height, width = _size(scene)
    mask = None if scene.objects.masks is None else scene.objects.masks[index]
    if mask is not None:
        return {"segmentation": rle_dict(mask, height, width)}
    x0, y0, x1, y1 = scene.objects.boxes[index].clip(0, [width, height, width, height])
    box = np.array([x0, y0, x1, y0, x1, y1, x0, y1])
    return {"segmentation": rle_dict((box,), height, width), "area": NOT_COUNTED}


def _size(scene: Scene) -> tuple[int, int]:
    """Height and width."""
    if scene.height is not None and scene.width is not None:
        return scene.height, scene.width
    width, height = size_of(scene.path)
    return height, width


def sides_of(box: Float64[np.ndarray, "4"]) -> list[float]:
    """x, y, width and height; exactly those of the file if they have at most 6 decimals there."""
    sides = box[2:] - box[:2]
    decimals = np.round(sides, 6)
    same = np.abs(decimals - sides) <= 4 * np.spacing(np.abs(box).max())
    return [*box[:2].tolist(), *np.where(same, decimals, sides).tolist()]


def _sigmas(scenes: SceneSet, given: Sequence[float] | None) -> Float64[np.ndarray, "K"]:
    """The sigmas of the scenes' K keypoints."""
    count = next((one.objects.keypoints.shape[1] for one in scenes.scenes if one.objects.keypoints is not None), 0)
    if given is not None and len(given) != count:
        raise DataError(f"{len(given)} sigmas for {count} keypoints: expected one for each")
    if given is not None:
        return np.array(given, dtype=np.float64)
    person = np.array(PERSON) / 100 / 10.0
    return person if count == len(PERSON) else np.full(count, person.mean())


def coco_categories(scenes: SceneSet) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in enumerate(scenes.classes, 1)]


def _without_objects(classes: tuple[str, ...], areas: tuple[str, ...], most: tuple[int, ...]) -> CocoScores:
    rest = (len(classes), len(areas), len(most))
    return CocoScores(classes, areas, most, np.full((10, 101, *rest), np.nan), np.full((10, *rest), np.nan))
