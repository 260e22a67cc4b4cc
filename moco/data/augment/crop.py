"""Crop and resize images, for views and for evaluation, with the bits of torchvision on Pillow 13."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8
from PIL import Image

from moco.recipe import DataSpec

LONG = 32  # aspect ratio above which evaluation resizes only the cropped part of an image


def crop(
    image: UInt8[np.ndarray, "H W 3"], box: Sequence[int] | Int64[np.ndarray, " 4"], *, flip: bool, size: int
) -> UInt8[np.ndarray, "3 S S"]:
    """`box` (top, left, height, width) of `image`, resized to `size` pixels square and mirrored if `flip`.

    Bit for bit what torchvision's resized_crop gives on an image of Pillow 13: bilinear, antialiased.
    """
    pixels = resized_box(image, box, size)
    return pixels[:, :: -1 if flip else 1].transpose(2, 0, 1).copy()  # a view of 1 pixel may have negative strides


def resized_box(
    image: Shaped[np.ndarray, "H W ..."], box: Sequence[int] | Int64[np.ndarray, " 4"], size: int
) -> Shaped[np.ndarray, "S S ..."]:
    """The box of anything that Pillow holds: RGB, or one band of floats."""
    top, left, height, width = (int(number) for number in box)
    inside = image[max(top, 0) : top + height, max(left, 0) : left + width]  # only this part is copied
    top, left = min(top, 0), min(left, 0)
    patch = Image.fromarray(inside).crop((left, top, left + width, top + height))
    return np.asarray(resize_as_pillow13(patch, size, size))


def crop_part(
    image: UInt8[np.ndarray, "h w 3"], box: Sequence[float] | Float64[np.ndarray, " 4"], *, flip: bool, size: int
) -> UInt8[np.ndarray, "3 S S"]:
    """As `crop`, of a box (top, left, bottom, right) [pixels] whose sides may lie within a pixel.

    Bit for bit what Pillow gives for one axis after the other, the rows first. Pixels outside of the box have no part.
    """
    top, left, bottom, right = (float(side) for side in box)
    y, x, below, beyond = math.floor(top), math.floor(left), math.ceil(bottom), math.ceil(right)
    inside = image[max(y, 0) : max(below, 0), max(x, 0) : max(beyond, 0)]
    corner = (min(x, 0), min(y, 0))
    part = Image.fromarray(inside).crop((*corner, corner[0] + beyond - x, corner[1] + below - y))
    rows = part.resize((size, part.height), Image.Resampling.BILINEAR, box=(left - x, 0, right - x, part.height))
    both = rows.resize((size, size), Image.Resampling.BILINEAR, box=(0, top - y, size, bottom - y))
    return np.asarray(both)[:, :: -1 if flip else 1].transpose(2, 0, 1).copy()


def columns_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether Pillow 13 resizes an image along its columns before its rows. Pillow 12 and older never do."""
    return height > new_height and height - new_height > 2 * (width - new_width)


def resize_as_pillow13(picture: Image.Image, width: int, height: int) -> Image.Image:
    """`picture`, resized bilinearly with the bits of Pillow 13, whichever Pillow is installed."""
    if columns_first(picture.height, picture.width, height, width):
        picture = picture.resize((picture.width, height), Image.Resampling.BILINEAR)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


class CentralCrop(NamedTuple):
    """The evaluation transform of an image: resize to height x width pixels, then crop at (top, left)."""

    height: int
    width: int
    top: int
    left: int


def central_crop(height: int, width: int, data: DataSpec) -> CentralCrop:
    """For an image of that size: its shorter side becomes `data.eval_resize`; the central `data.size` is cut out."""
    short = min(height, width)
    if short != data.eval_resize:
        height, width = (int(data.eval_resize * side / short) for side in (height, width))
    return CentralCrop(height, width, _margin(height, data.size), _margin(width, data.size))


def is_long(cut: CentralCrop) -> bool:
    """Whether a resized image is too long to hold in memory: one of 1 x 60,000 pixels would take 12 GB."""
    return max(cut.height, cut.width) > LONG * min(cut.height, cut.width)


def eval_crop(image: UInt8[np.ndarray, "H W 3"], data: DataSpec) -> UInt8[np.ndarray, "3 S S"]:
    """The central crop for evaluation. Bit for bit torchvision's Resize and CenterCrop on an image of Pillow 13.

    Of very long images only the cropped part is resized, which differs by rounding (at most 1 of 255).
    """
    return np.ascontiguousarray(central_part(image, data).transpose(2, 0, 1))


def central_part(image: Shaped[np.ndarray, "H W ..."], data: DataSpec) -> Shaped[np.ndarray, "S S ..."]:
    """The central crop of anything that Pillow holds: RGB, or one band of floats."""
    cut = central_crop(image.shape[0], image.shape[1], data)
    height, width, top, left = cut
    if is_long(cut):
        picture, top, left = _resized_part(image, cut, data.size), min(top, 0), min(left, 0)
    else:
        picture = Image.fromarray(image)
        if (height, width) != image.shape[:2]:
            picture = resize_as_pillow13(picture, width, height)
    return np.asarray(picture.crop((left, top, left + data.size, top + data.size)))


def _resized_part(image: Shaped[np.ndarray, "H W ..."], cut: CentralCrop, size: int) -> Image.Image:
    """Of `image`, resized to cut.height x cut.width, the part that the box of `size` x `size` shows."""
    rows = _shown(cut.top, size, before=image.shape[0], after=cut.height)
    columns = _shown(cut.left, size, before=image.shape[1], after=cut.width)
    part, size_before = Image.fromarray(image[rows.read, columns.read]), rows.read.stop - rows.read.start
    box = (columns.low, 0, columns.high, size_before)  # one axis after the other: the same bits with any Pillow
    part = part.resize((columns.length, size_before), Image.Resampling.BILINEAR, box=box)
    box = (0, rows.low, columns.length, rows.high)
    return part.resize((columns.length, rows.length), Image.Resampling.BILINEAR, box=box)


class _Shown(NamedTuple):
    """The part of an axis that a crop shows: `length` pixels, resized from `low` to `high` of those read."""

    length: int
    read: slice
    low: float
    high: float


def _shown(start: int, size: int, *, before: int, after: int) -> _Shown:
    """Of an axis of `before` pixels that has `after` when it is resized: the part from `start` on, `size` long."""
    first, last, scale = max(start, 0), min(start + size, after), before / after
    low, high = first * scale, min(last * scale, before)
    reach = math.ceil(max(scale, 1.0)) + 1  # pixels beyond the part that the filter reads
    begin, end = max(math.floor(low) - reach, 0), min(math.ceil(high) + reach, before)
    return _Shown(last - first, slice(begin, end), low - begin, high - begin)


def _margin(side: int, size: int) -> int:
    """Where a central crop of `size` begins; negative where it is larger and pads. Rounds as torchvision does."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)
