"""Flip an image and its objects."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from moco.transfer.models.densepose import SurfacePoints
from moco.transfer.models.sampling import Target


def flip(
    image: UInt8[Tensor, "3 h w"],
    target: Target,
    keypoint_names: Sequence[str] = (),
    mirror_body: Callable[[SurfacePoints], SurfacePoints] | None = None,
) -> tuple[UInt8[Tensor, "3 h w"], Target]:
    """Exchange left and right of an image and its objects, and of keypoints whose names say left or right.

    Points on bodies are mirrored by `mirror_body`; without it they are removed.
    """
    width = image.shape[2]
    boxes = target["boxes"]
    flipped = {**target, "boxes": torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)}
    masks = target.get("masks")
    if isinstance(masks, Tensor):
        flipped["masks"] = masks.flip(2)
    elif masks is not None:
        flipped["masks"] = [[_mirrored(part, width) for part in parts] for parts in masks]
    if "keypoints" in target:
        points = target["keypoints"][:, mirror_keypoint_order(keypoint_names, target["keypoints"].shape[1])].clone()
        points[..., 0] = torch.where(points[..., 2] > 0, width - points[..., 0], points[..., 0])
        flipped["keypoints"] = points
    if "densepose" in target:
        persons = target["densepose"]
        flipped["densepose"] = [None if one is None or mirror_body is None else mirror_body(one) for one in persons]
    return image.flip(2), flipped


def _mirrored(polygon: np.ndarray, width: int) -> np.ndarray:
    points = polygon.reshape(-1, 2).copy()
    points[:, 0] = width - points[:, 0]
    return points.ravel()


def mirror_keypoint_order(names: Sequence[str], count: int) -> list[int]:
    """For each of `count` keypoints, the one that takes its place in a flipped image: right_eye for left_eye."""
    if len(names) != count:
        return list(range(count))
    places = {name: place for place, name in enumerate(names)}
    order = list[int]()
    for place, name in enumerate(names):
        other = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
        order.append(places.get(other, place))
    return order
