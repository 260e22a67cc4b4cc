"""What torchvision's detectors learn from: the objects of a scene as a dict of tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from moco.transfer.masks import bitmap
from moco.transfer.models.densepose import Annotation
from moco.transfer.scenes import HALF, BodyPoints, Mask, Polygons, Rle, Scene


def targets(scene: Scene) -> dict[str, Any]:
    """The objects of a scene to train on: no crowds, and none that has no area inside of the image.

    `boxes` FloatTensor [n, 4], corners, cut at the image's border where its size is known; `labels` Int64Tensor [n],
    0 to K - 1; with masks `masks`, a list of Polygons (float64 arrays x0 y0 x1 y1 ...), or where an object has a
    run-length mask a BoolTensor [n, H, W]; with keypoints `keypoints` FloatTensor [n, K, 3], at the centres of pixels,
    zeros where a point is not labelled.
    Of DensePose `densepose`, an `Annotation` of moco.transfer.models.densepose or None for each object.
    `indices` Int64Tensor [n] are the places of these objects in `scene.objects`.
    """
    objects = scene.objects
    boxes = objects.boxes.copy()
    if scene.width is not None and scene.height is not None:
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, scene.width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, scene.height)
    usable = ~objects.crowd & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if objects.masks is not None:
        usable &= np.array([mask is not None for mask in objects.masks], dtype=bool)
    chosen = np.flatnonzero(usable)
    result: dict[str, Any] = {
        "boxes": torch.from_numpy(boxes[chosen]).float(),
        "labels": torch.from_numpy(objects.labels[chosen]),
        "indices": torch.from_numpy(chosen),
    }
    if objects.masks is not None:
        result["masks"] = _masks([mask for index in chosen if (mask := objects.masks[index]) is not None], scene)
    if objects.keypoints is not None:
        points = objects.keypoints[chosen]
        points[..., :2] += HALF
        points[points[..., 2] == 0] = 0
        result["keypoints"] = torch.from_numpy(points).float()
    if objects.body_points is not None:
        result["densepose"] = [_on_body(objects.body_points[index]) for index in chosen]
    return result


def _on_body(points: BodyPoints | None) -> Annotation | None:
    if points is None or not len(points.x):
        return None
    x, y, u, v = (torch.from_numpy(values).float() for values in (points.x, points.y, points.u, points.v))
    return Annotation(x, y, torch.from_numpy(points.part), u, v, torch.from_numpy(points.mask))


def _masks(masks: list[Mask], scene: Scene) -> list[Polygons] | Tensor:
    """As polygons where all objects have them, otherwise as bitmaps of the image's size."""
    polygons = [mask for mask in masks if not isinstance(mask, Rle)]
    if len(polygons) == len(masks):
        return polygons
    assert scene.height is not None  # of a set with run-length masks, sizes are known
    assert scene.width is not None
    return torch.from_numpy(np.stack([bitmap(mask, scene.height, scene.width) for mask in masks]))
