"""Training crops: resize, crop, pad and flip an image and its labels in the same way."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from moco.transfer.segmentation.recipe import CropSpec
from moco.transfer.semantic import IGNORED


class CropWindow(NamedTuple):
    """Position and size of a crop in the resized image [pixels]."""

    resized: tuple[int, int]  # width and height of the resized image
    left: int
    top: int
    width: int
    height: int
    flip: bool

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The same region in an image of `width` x `height` before resizing: left, top, right, bottom [pixels]."""
        across, down = width / self.resized[0], height / self.resized[1]
        right, bottom = (self.left + self.width) * across, (self.top + self.height) * down
        return self.left * across, self.top * down, min(right, width), min(bottom, height)


def draw_window(width: int, height: int, spec: CropSpec, rng: np.random.Generator) -> CropWindow:
    """A random crop of an image of this size: the ratio and the place are drawn uniformly."""
    ratio = rng.uniform(spec.smallest, spec.largest)
    resized = max(1, round(width * ratio)), max(1, round(height * ratio))
    size = min(spec.side, resized[0]), min(spec.side, resized[1])
    left, top = (int(rng.integers(whole - part + 1)) for whole, part in zip(resized, size, strict=True))
    return CropWindow(resized, left, top, *size, flip=bool(rng.random() < spec.flip))


def crop_with_labels(
    image: UInt8[np.ndarray, "h w 3"],
    labels: UInt8[np.ndarray, "h w"],
    window: CropWindow,
    *,
    side: int,
    colour: tuple[int, int, int],
) -> tuple[UInt8[np.ndarray, "H H 3"], UInt8[np.ndarray, "H H"]]:
    """Cut the window out of image and labels, and pad it to `side` x `side` with `colour` and with 255 (ignored).

    The image is resized by Pillow's bilinear filter, which averages pixels where it shrinks; labels take the nearest
    pixel. Only the window is resized, so that a large image is never in memory at twice its size.
    """
    box = window.box(labels.shape[1], labels.shape[0])
    size = (window.width, window.height)
    part = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))
    classes = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST, box=box))
    pixels = np.empty((side, side, 3), dtype=np.uint8)
    pixels[:] = colour
    known = np.full((side, side), IGNORED, dtype=np.uint8)
    step = -1 if window.flip else 1
    pixels[: window.height, : window.width] = part[:, ::step]
    known[: window.height, : window.width] = classes[:, ::step]
    return pixels, known
