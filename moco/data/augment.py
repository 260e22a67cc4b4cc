"""From an image to its views: the dice, where to crop, and cropping; how a view looks is in colour.py.

Every random number is a function of (seed, epoch, image, view, die), so a view depends on neither workers nor batches.
The laws and the arithmetic are those of torchvision's transforms on Pillow images, which the papers used.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Integer, UInt8
from PIL import Image
from torch import Tensor

from moco import rng
from moco.data.colour import Look, colour
from moco.recipe import DataSpec, View

__all__ = [
    "OPS", "Dice", "Die", "Look", "cast", "colour", "crop", "crop_batch", "crop_boxes", "eval_crop", "flips", "look",
    "normalize",
]  # fmt: skip

OPS = 64  # slots of rng.uniform a view takes: slot = view * OPS + die
TRIES = 10  # to draw a crop that lies inside of the image (torchvision's RandomResizedCrop)
Rows = Int64[np.ndarray, " n"] | slice
ALL = slice(None)
ORDERS = np.array(list(itertools.permutations(range(4))), dtype=np.int64)  # of the four changes of colour


class Die(IntEnum):
    """What is thrown for a view. A new die takes a new number: the old ones keep theirs, or old runs look different."""

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
class Dice:
    """Every random number of one view of N images."""

    seed: int
    epoch: int
    ids: Integer[np.ndarray, " N"]
    view_index: int

    def roll(self, die: int, *, rows: Rows = ALL) -> Float64[np.ndarray, " n"]:
        """In [0, 1), for the images in `rows`."""
        return rng.uniform(self.seed, self.epoch, self.ids[rows], self.view_index * OPS + die)

    def chance(self, die: int, p: float) -> Bool[np.ndarray, " N"]:
        """True with probability p."""
        return self.roll(die) < p

    def between(self, die: int, low: float, high: float, *, rows: Rows = ALL) -> Float64[np.ndarray, " n"]:
        """Uniform in [low, high)."""
        return low + (high - low) * self.roll(die, rows=rows)


def cast(seed: int, epoch: int, *, ids: Integer[np.ndarray, " N"], view_index: int) -> Dice:
    """The dice of the `view_index`-th view that the images `ids` have in `epoch` of the run seeded with `seed`."""
    return Dice(seed, epoch, np.asarray(ids), view_index)


def crop_boxes(
    view: View, dice: Dice, *, heights: Integer[np.ndarray, " N"], widths: Integer[np.ndarray, " N"]
) -> Int64[np.ndarray, "N 4"]:
    """What to crop, (top, left, height, width) in pixels, by the law of torchvision's RandomResizedCrop.

    Up to ten times an area and a ratio are drawn, until the crop fits; then its place. If none fits, it is the largest
    central crop with an allowed ratio.

    Where `view.crop_area` goes above 1, a crop may be larger than the image along an axis: then the image lies wholly
    inside of it, anywhere, and coordinates are negative. What is outside of the image is black.
    """
    bounds = np.stack([heights, widths], axis=1).astype(np.int64)
    size = _central(view, bounds)
    log_ratio = [math.log(ratio) for ratio in view.crop_ratio]
    waiting = np.arange(len(bounds))
    for attempt in range(TRIES):
        area = bounds[waiting].prod(axis=1) * dice.between(Die.AREA + attempt, *view.crop_area, rows=waiting)
        ratio = np.exp(dice.between(Die.RATIO + attempt, *log_ratio, rows=waiting))
        drawn = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=1))).astype(np.int64)
        fits = (drawn > 0).all(axis=1)
        if view.crop_area[1] <= 1:
            fits &= (drawn <= bounds[waiting]).all(axis=1)
        size[waiting[fits]] = drawn[fits]
        waiting = waiting[~fits]
        if not waiting.size:
            break
    room = bounds - size
    place = np.stack([dice.roll(Die.TOP), dice.roll(Die.LEFT)], axis=1)
    corner = np.minimum(room, 0) + np.floor(place * (np.abs(room) + 1)).astype(np.int64)
    corner[waiting] = room[waiting] // 2
    return np.concatenate([corner, size], axis=1)


def _central(view: View, bounds: Int64[np.ndarray, "N 2"]) -> Int64[np.ndarray, "N 2"]:
    """The largest crop (height, width) with a ratio that is allowed."""
    (height, width), (low, high) = bounds.T, view.crop_ratio
    ratio = width / height
    rows, columns = np.where(ratio < low, width / low, height), np.where(ratio > high, height * high, width)
    return np.rint(np.stack([rows, columns], axis=1)).astype(np.int64)


def flips(view: View, dice: Dice) -> Bool[np.ndarray, " N"]:
    """Which views are mirrored."""
    return dice.chance(Die.FLIP, view.flip)


def look(view: View, dice: Dice) -> Look:
    """What happens to the colours of a view of N images."""
    jitter = view.jitter
    order = ORDERS[np.floor(dice.roll(Die.ORDER) * len(ORDERS)).astype(np.int64)]
    order[~dice.chance(Die.JITTER, jitter.p)] = -1
    amounts = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    order[np.isin(order, [op for op, amount in enumerate(amounts) if amount == 0])] = -1
    factors = [
        dice.between(die, max(0.0, 1 - amount), 1 + amount)
        for die, amount in zip((Die.BRIGHTNESS, Die.CONTRAST, Die.SATURATION), amounts[:3], strict=True)
    ]
    factors.append(dice.between(Die.HUE, -jitter.hue, jitter.hue))
    blurred = dice.chance(Die.BLUR, view.blur)
    return Look(
        order=order,
        factors=np.stack(factors, axis=1),
        grey=dice.chance(Die.GREY, view.grey),
        grey_first=view.grey_first,
        sigma=np.where(blurred, dice.between(Die.SIGMA, *view.blur_sigma), 0.0),
        solarize=dice.chance(Die.SOLARIZE, view.solarize),
    )


def crop(
    image: UInt8[np.ndarray, "H W 3"], box: Sequence[int] | Int64[np.ndarray, " 4"], *, flip: bool, size: int
) -> UInt8[np.ndarray, "3 S S"]:
    """`box` (top, left, height, width) of `image`, resized to `size` pixels square and mirrored if `flip`.

    Bit for bit what torchvision's resized_crop gives on a Pillow image: bilinear, antialiased.
    """
    top, left, height, width = (int(number) for number in box)
    inside = image[max(top, 0) : top + height, max(left, 0) : left + width]  # so that only this much is copied
    top, left = min(top, 0), min(left, 0)
    patch = Image.fromarray(inside).crop((left, top, left + width, top + height))
    pixels = np.asarray(patch.resize((size, size), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels[:, :: -1 if flip else 1].transpose(2, 0, 1))


def crop_batch(
    images: UInt8[Tensor, "N 3 H W"], boxes: Int64[np.ndarray, "N 4"], *, flips: Bool[np.ndarray, " N"], size: int
) -> UInt8[Tensor, "N 3 S S"]:
    """What `crop` gives (up to 5 values in 100 differ by a rounding), for small images of one size, on their device.

    The filter is separable: two matrix products for each image, with a rounding between them as Pillow has it.
    """
    _, _, height, width = images.shape
    corners_and_sizes = torch.from_numpy(boxes.astype(np.float32)).to(images.device, non_blocking=True)
    top, left, box_height, box_width = corners_and_sizes.unsqueeze(2).unbind(1)  # N 1
    outside = max(0, int(-boxes[:, :2].min()), int((boxes[:, :2] + boxes[:, 2:] - [height, width]).max()))
    across = torch.arange(size, device=images.device, dtype=torch.float32).expand(len(boxes), size)
    mirrored = torch.from_numpy(flips).to(images.device, non_blocking=True).float().unsqueeze(1)
    columns = _triangles(across + mirrored * (size - 1 - 2 * across), left, box_width, width, outside)
    rows = _triangles(across, top, box_height, height, outside)
    pixels = images.permute(0, 2, 1, 3).to(torch.float32, memory_format=torch.contiguous_format)  # N H 3 W
    pixels = torch.bmm(pixels.flatten(1, 2), columns.transpose(1, 2)).add_(0.5).floor_()  # N (H 3) S
    pixels = torch.bmm(rows, pixels.view(len(images), height, 3 * size)).add_(0.5).floor_()  # N S (3 S)
    pixels = pixels.view(len(images), size, 3, size).permute(0, 2, 1, 3)
    return pixels.to(torch.uint8, memory_format=torch.contiguous_format)


def _triangles(
    out: Float32[Tensor, "N S"],
    start: Float32[Tensor, "N 1"],
    length: Float32[Tensor, "N 1"],
    extent: int,
    outside: int,
) -> Float32[Tensor, "N S L"]:
    """How much each of the `extent` pixels along an axis counts for the output pixels `out` of a box.

    Pillow's bilinear filter: a triangle as wide as 2 output pixels (2 input pixels when enlarging), cut off at the
    border of the box, normalized. Pixels of the box that are `outside` of the image count in the sum, and are black.

    Weights are whole multiples of 2**-16, so that all sums of products with bytes are exact in float32: in whatever
    order a device adds, and in whatever batch an image is, its view is the same (unless products are made in TF32).
    """
    pixel = torch.arange(-outside, extent + outside, device=out.device, dtype=torch.float32) - start  # N L, in the box
    inside = ((pixel + 1).clamp_(0, 1) * (length - pixel).clamp_(0, 1)).unsqueeze(1)  # 1 in the box, else 0
    scale = length / out.shape[1]
    centre = ((out + 0.5) * scale).unsqueeze(2)
    distance = (pixel.unsqueeze(1) + 0.5 - centre).abs_().div_(scale.clamp(min=1).unsqueeze(2))
    weight = (1 - distance).clamp_(min=0).mul_(inside).mul_(2**16).round_()
    weight = weight.mul_(2**16 / weight.sum(2, keepdim=True)).round_().mul_(2**-16)
    return weight[:, :, outside : outside + extent]


def eval_crop(image: UInt8[np.ndarray, "H W 3"], data: DataSpec) -> UInt8[np.ndarray, "3 S S"]:
    """What evaluation sees of `image`: its shorter side becomes `data.eval_resize`, the central `data.size` is cut out.

    Bit for bit torchvision's Resize and CenterCrop on a Pillow image.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    picture = Image.fromarray(image)
    if short != data.eval_resize:
        height, width = (int(data.eval_resize * side / short) for side in (height, width))
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    top, left = (_margin(side, data.size) for side in (height, width))
    pixels = np.asarray(picture.crop((left, top, left + data.size, top + data.size)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _margin(side: int, size: int) -> int:
    """Where a central crop of `size` begins; negative where it is larger and pads. Rounds as torchvision does."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)


def normalize(
    crops: UInt8[Tensor, "N 3 S S"], *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "N 3 S S"]:
    """(crops / 255 - mean) / std in float32, channel by channel."""
    shift = torch.tensor(mean).mul(255).view(3, 1, 1).to(crops.device, non_blocking=True)
    scale = torch.tensor(std).mul(255).reciprocal().view(3, 1, 1).to(crops.device, non_blocking=True)
    return crops.float().sub_(shift).mul_(scale)
