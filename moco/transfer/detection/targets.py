"""Training targets: the objects of a scene as a dict of tensors, as torchvision's detectors take them."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from moco.transfer.masks import bitmap
from moco.transfer.models.densepose import SurfacePoints
from moco.transfer.scenes import HALF_PIXEL, BodyPoints, Mask, Polygons, Rle, Scene


def targets(scene: Scene) -> dict[str, Any]:
    """The objects of a scene to train on. Crowds and objects without area inside of the image are excluded.

    Returns a dict:
        boxes: FloatTensor [n, 4], corners, clipped to the image if its size is known.
        labels: Int64Tensor [n], 0 to K - 1.
        indices: Int64Tensor [n], index of each object in `scene.objects`.
        masks: if there are masks, a list of Polygons (float64 arrays x0 y0 x1 y1 ...); a BoolTensor [n, H, W] if any
            object has a run-length mask.
        keypoints: if there are keypoints, FloatTensor [n, K, 3] at pixel centres; zeros for points not labelled.
        densepose: if there are body points, an `Annotation` of moco.transfer.models.densepose or None per object.
    """
    objects, boxes, chosen = scene.objects, _clipped(scene), usable(scene)
    result: dict[str, Any] = {
        "boxes": torch.from_numpy(boxes[chosen]).float(),
        "labels": torch.from_numpy(objects.labels[chosen]),
        "indices": torch.from_numpy(chosen),
    }
    if objects.masks is not None:
        result["masks"] = _masks([mask for index in chosen if (mask := objects.masks[index]) is not None], scene)
    if objects.keypoints is not None:
        points = objects.keypoints[chosen]
        points[..., :2] += HALF_PIXEL
        points[points[..., 2] == 0] = 0
        result["keypoints"] = torch.from_numpy(points).float()
    if objects.body_points is not None:
        result["densepose"] = [_on_body(objects.body_points[index]) for index in chosen]
    return result


def usable(scene: Scene) -> Int64[np.ndarray, "n"]:
    """Indices of the objects to train on."""
    objects, boxes = scene.objects, _clipped(scene)
    good = ~objects.crowd & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if objects.masks is not None:
        good &= np.array([mask is not None for mask in objects.masks], dtype=bool)
    return np.flatnonzero(good)


def _clipped(scene: Scene) -> Float64[np.ndarray, "n 4"]:
    """The boxes, clipped to the image if its size is known."""
    boxes = scene.objects.boxes.copy()
    if scene.width is not None and scene.height is not None:
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, scene.width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, scene.height)
    return boxes


def _on_body(points: BodyPoints | None) -> SurfacePoints | None:
    if points is None or not len(points.x):
        return None
    x, y, u, v = (torch.from_numpy(values).float() for values in (points.x, points.y, points.u, points.v))
    return SurfacePoints(x, y, torch.from_numpy(points.part), u, v, torch.from_numpy(points.mask))


def _masks(masks: list[Mask], scene: Scene) -> list[Polygons] | Tensor:
    """Polygons if all objects have them, otherwise bitmaps of the size of the image."""
    polygons = [mask for mask in masks if not isinstance(mask, Rle)]
    if len(polygons) == len(masks):
        return polygons
    assert scene.height is not None  # sets with run-length masks have sizes
    assert scene.width is not None
    return torch.from_numpy(np.stack([bitmap(mask, scene.height, scene.width) for mask in masks]))
