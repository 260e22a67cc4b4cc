"""Draw the random numbers of views, and crop. Colour changes are in colour.py.

Every random number is a function of (seed, epoch, image, view, choice), so views do not depend on workers or batches.
Distributions and arithmetic are those of torchvision's transforms on Pillow images, which the papers used.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Integer, UInt8
from PIL import Image
from torch import Tensor

from moco import rng
from moco.data.augment.colour import Look, colour
from moco.recipe import DataSpec, View

__all__ = [
    "OPS",
    "Choice",
    "Look",
    "RandomNumbers",
    "colour",
    "crop",
    "crop_boxes",
    "eval_crop",
    "flips",
    "is_long",
    "look",
    "normalize",
    "random_numbers",
]  # fmt: skip

OPS = 64  # slots of rng.uniform reserved for each view: slot = view * OPS + choice
LONG = 32  # aspect ratio above which evaluation resizes only the cropped part of an image
TRIES = 10  # to draw a crop that lies inside of the image (torchvision's RandomResizedCrop)
ORDERS = np.array(list(itertools.permutations(range(4))), dtype=np.int64)  # of the four changes of colour


class Choice(IntEnum):
    """The random choices for a view.

    A new choice takes a new number. The others keep theirs: the views of old runs depend on them.
    """

    AREA = 0  # and the next TRIES - 1
    RATIO = 10  # and the next TRIES - 1
    TOP = 20
    LEFT = 21
    FLIP = 22
    GREY = 23
    JITTER = 24
    ORDER = 25
    BRIGHTNESS = 26
    CONTRAST = 27
    SATURATION = 28
    HUE = 29
    BLUR = 30
    SIGMA = 31
    SOLARIZE = 32


@dataclass(frozen=True)
class RandomNumbers:
    """The random numbers of one view of N images, one column in [0, 1) for each choice."""

    values: Float64[np.ndarray, "N numbers"]

    def __len__(self) -> int:
        return len(self.values)

    def of(self, choice: int) -> Float64[np.ndarray, " N"]:
        return self.values[:, choice]

    def chance(self, choice: int, p: float) -> Bool[np.ndarray, " N"]:
        """True with probability p."""
        return self.of(choice) < p

    def between(self, choice: int, low: float, high: float) -> Float64[np.ndarray, " N"]:
        """Uniform in [low, high)."""
        return low + (high - low) * self.of(choice)

    def tries(self, choice: int, low: float, high: float) -> Float64[np.ndarray, "N tries"]:
        """As `between`, one column for each try."""
        return low + (high - low) * self.values[:, choice : choice + TRIES]

    def rows(self, rows: slice) -> "RandomNumbers":
        """The numbers of some of the images."""
        return RandomNumbers(self.values[rows])


def random_numbers(seed: int, epoch: int, *, ids: Integer[np.ndarray, " N"], view_index: int) -> RandomNumbers:
    """The numbers of the `view_index`-th view that the images `ids` have in `epoch` of the run seeded with `seed`."""
    slots = view_index * OPS + np.arange(max(Choice) + 1)
    return RandomNumbers(rng.uniform(seed, epoch, np.asarray(ids)[:, None], slots))


def crop_boxes(
    view: View, numbers: RandomNumbers, *, heights: Integer[np.ndarray, " N"], widths: Integer[np.ndarray, " N"]
) -> Int64[np.ndarray, "N 4"]:
    """Crop boxes (top, left, height, width) in pixels, distributed as in torchvision's RandomResizedCrop.

    Area and ratio are drawn up to ten times until the crop fits, then its position. If none fits, the box is the
    largest central crop with an allowed ratio.

    If `view.crop_area` allows more than 1, a crop may be larger than the image along an axis. Then the image lies at a
    random position inside of it, coordinates are negative, and the padding is black.
    """
    bounds = np.stack([heights, widths], axis=1).astype(np.int64)
    area = bounds.prod(axis=1, keepdims=True) * numbers.tries(Choice.AREA, *view.crop_area)
    ratio = np.exp(numbers.tries(Choice.RATIO, *(math.log(ratio) for ratio in view.crop_ratio)))
    drawn = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=2))).astype(np.int64)  # N x tries x 2
    fits = (drawn > 0).all(axis=2)
    if view.crop_area[1] <= 1:
        fits &= (drawn <= bounds[:, None]).all(axis=2)
    first, none = fits.argmax(axis=1), fits.sum(axis=1) == 0
    size = drawn[np.arange(len(bounds)), first]
    if none.any():
        size[none] = _largest_central(view, bounds[none])
    room = bounds - size
    place = np.stack([numbers.of(Choice.TOP), numbers.of(Choice.LEFT)], axis=1)
    corner = np.minimum(room, 0) + np.floor(place * (np.abs(room) + 1)).astype(np.int64)
    corner[none] = room[none] // 2
    return np.concatenate([corner, size], axis=1)


def _largest_central(view: View, bounds: Int64[np.ndarray, "N 2"]) -> Int64[np.ndarray, "N 2"]:
    """The largest crop (height, width) with a ratio that is allowed."""
    (height, width), (low, high) = bounds.T, view.crop_ratio
    ratio = width / height
    rows, columns = np.where(ratio < low, width / low, height), np.where(ratio > high, height * high, width)
    return np.rint(np.stack([rows, columns], axis=1)).astype(np.int64)


def flips(view: View, numbers: RandomNumbers) -> Bool[np.ndarray, " N"]:
    """Which views are mirrored."""
    return numbers.chance(Choice.FLIP, view.flip)


def look(view: View, numbers: RandomNumbers) -> Look:
    """The changes of colour in a view of N images."""
    jitter = view.jitter
    order = ORDERS[np.floor(numbers.of(Choice.ORDER) * len(ORDERS)).astype(np.int64)]
    order[~numbers.chance(Choice.JITTER, jitter.p)] = -1
    amounts = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    order[np.isin(order, [op for op, amount in enumerate(amounts) if amount == 0])] = -1
    factors = [
        numbers.between(choice, max(0.0, 1 - amount), 1 + amount)
        for choice, amount in zip((Choice.BRIGHTNESS, Choice.CONTRAST, Choice.SATURATION), amounts[:3], strict=True)
    ]
    factors.append(numbers.between(Choice.HUE, -jitter.hue, jitter.hue))
    blurred = numbers.chance(Choice.BLUR, view.blur)
    return Look(
        order=order,
        factors=np.stack(factors, axis=1),
        grey=numbers.chance(Choice.GREY, view.grey),
        grey_first=view.grey_first,
        sigma=np.where(blurred, numbers.between(Choice.SIGMA, *view.blur_sigma), 0.0),
        solarize=numbers.chance(Choice.SOLARIZE, view.solarize),
    )


def crop(
    image: UInt8[np.ndarray, "H W 3"], box: Sequence[int] | Int64[np.ndarray, " 4"], *, flip: bool, size: int
) -> UInt8[np.ndarray, "3 S S"]:
    """`box` (top, left, height, width) of `image`, resized to `size` pixels square and mirrored if `flip`.

    Bit for bit what torchvision's resized_crop gives on an image of Pillow 13: bilinear, antialiased.
    """
    top, left, height, width = (int(number) for number in box)
    inside = image[max(top, 0) : top + height, max(left, 0) : left + width]  # only this part is copied
    top, left = min(top, 0), min(left, 0)
    patch = Image.fromarray(inside).crop((left, top, left + width, top + height))
    pixels = np.asarray(resized(patch, size, size))
    return pixels[:, :: -1 if flip else 1].transpose(2, 0, 1).copy()  # a view of 1 pixel may have negative strides


def columns_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether Pillow 13 resizes an image along its columns before its rows. Pillow 12 and older never do."""
    return height > new_height and height - new_height > 2 * (width - new_width)


def resized(picture: Image.Image, width: int, height: int) -> Image.Image:
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
    cut = central_crop(image.shape[0], image.shape[1], data)
    height, width, top, left = cut
    if is_long(cut):
        picture, top, left = _resized_part(image, cut, data.size), min(top, 0), min(left, 0)
    else:
        picture = Image.fromarray(image)
        if (height, width) != image.shape[:2]:
            picture = resized(picture, width, height)
    pixels = np.asarray(picture.crop((left, top, left + data.size, top + data.size)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _resized_part(image: UInt8[np.ndarray, "H W 3"], cut: CentralCrop, size: int) -> Image.Image:
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


def normalize(
    crops: UInt8[Tensor, "N 3 S S"], *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "N 3 S S"]:
    """(crops / 255 - mean) / std in float32, channel by channel."""
    shift, scale = (row.to(crops.device, non_blocking=True) for row in shift_and_scale(mean, std))
    return crops.float().sub_(shift).mul_(scale)


def shift_and_scale(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tuple[Float32[Tensor, "3 1 1"], Float32[Tensor, "3 1 1"]]:
    """(shift, scale): a byte b becomes (b - shift) * scale."""
    return torch.tensor(mean).mul(255).view(3, 1, 1), torch.tensor(std).mul(255).reciprocal().view(3, 1, 1)
