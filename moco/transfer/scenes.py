"""Images with annotated objects: every reader returns them in this format, and every metric takes it.

Coordinates are continuous and 0-based: the pixel in column 0 covers x from 0 to 1. A box is `x0 y0 x1 y1`.
Keypoints are as in COCO, integers that mean the centre of a pixel; `targets` adds 0.5 for the network.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt32

HALF_PIXEL = 0.5  # [pixels] added to COCO's integer keypoints to get pixel centres
Polygons = tuple[Float64[np.ndarray, "_"], ...]  # the parts of one object, each a flat x0 y0 x1 y1 ...


@dataclass(frozen=True)
class Rle:
    """A run-length mask of `height` x `width` pixels, column by column. The first run is background."""

    height: int
    width: int
    runs: UInt32[np.ndarray, "n"]  # their sum is height * width


Mask = Polygons | Rle


@dataclass(frozen=True)
class BodyPoints:
    """DensePose: points and coarse parts of a person's body. Coordinates are in the box, scaled to 256 x 256."""

    x: Float64[np.ndarray, "p"]  # 0 to 255 within the box
    y: Float64[np.ndarray, "p"]
    part: Int64[np.ndarray, "p"]  # 1 to 24
    u: Float64[np.ndarray, "p"]  # 0 to 1 on the part
    v: Float64[np.ndarray, "p"]
    mask: UInt8[np.ndarray, "256 256"]  # coarse part of each pixel: 1 to 14, 0 for background


@dataclass(frozen=True)
class Objects:
    """The n objects of one image. Some may have no area; `targets` excludes these from training."""

    ids: tuple[str, ...]  # for error messages
    boxes: Float64[np.ndarray, "n 4"]  # as in the file: may reach beyond the image
    labels: Int64[np.ndarray, "n"]  # index into the classes of the SceneSet
    crowd: Bool[np.ndarray, "n"]  # a group of objects: not used for training, and not counted as missed
    difficult: Bool[np.ndarray, "n"]  # VOC: used for training, not counted in evaluation
    areas: Float64[np.ndarray, "n"]  # [pixels] as in the file: of the mask if there is one, else of the box
    masks: tuple[Mask | None, ...] | None = None
    keypoints: Float64[np.ndarray, "n K 3"] | None = None  # x, y, visibility: 0 not labelled, 1 hidden, 2 visible
    body_points: tuple[BodyPoints | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Scene:
    """One image and its objects."""

    path: Path
    id: int | str  # as in the file; unique in a SceneSet
    width: int | None  # None if the annotations do not have it; use `readers.images.size_of`
    height: int | None
    objects: Objects
    negative: tuple[int, ...] = ()  # LVIS: classes verified as absent
    not_exhaustive: tuple[int, ...] = ()  # LVIS: classes of which not every object is annotated
    ignored: Rle | None = None  # Cityscapes: pixels that are not scored


@dataclass(frozen=True)
class SceneSet:
    """Annotated images. Their order depends only on the annotations, not on the file system."""

    classes: tuple[str, ...]
    scenes: tuple[Scene, ...]
    category_ids: tuple[int, ...]  # the ids of the classes in the file; result files use them
    keypoint_names: tuple[str, ...] = ()
    frequencies: tuple[str, ...] = ()  # LVIS: r, c or f of each class
    skipped: tuple[str, ...] = field(default=(), repr=False)  # for each skipped annotation, the reason

    def __len__(self) -> int:
        return len(self.scenes)
