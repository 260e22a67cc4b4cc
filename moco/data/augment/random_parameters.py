"""Draw the random parameters of views: crop boxes, flips and colour changes. `crop.py` and `colour.py` apply them.

Every random number is a function of (seed, epoch, image, view, choice), so views do not depend on workers or batches.
Distributions and arithmetic are those of torchvision's transforms on Pillow images, which the papers used.
"""

import itertools
import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from moco import rng
from moco.data.augment.colour import Look
from moco.recipe import View

OPS = 64  # slots of rng.uniform reserved for each view: slot = view * OPS + choice
BANDS = 4096  # slots from here on are those of bands, 64 for each view
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
    FLIP_VERTICAL = 33
    ROTATE90 = 34


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


def random_numbers(
    seed: int, epoch: int, *, ids: Integer[np.ndarray, " N"], view_index: int, bands: int = 0
) -> RandomNumbers:
    """The numbers of the `view_index`-th view that the images `ids` have in `epoch` of the run seeded with `seed`.

    After the columns of `Choice` there is one for each of `bands`.
    """
    slots = np.concatenate([view_index * OPS + np.arange(max(Choice) + 1), BANDS + view_index * OPS + np.arange(bands)])
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


def vertical_flips(view: View, numbers: RandomNumbers) -> Bool[np.ndarray, " N"]:
    """Which views are upside down."""
    return numbers.chance(Choice.FLIP_VERTICAL, view.flip_vertical)


def quarter_turns(view: View, numbers: RandomNumbers) -> Int64[np.ndarray, " N"]:
    """The number of counterclockwise quarter turns of each view: 0, or with probability `view.rotate90` 1, 2 or 3."""
    if view.rotate90 == 0:
        return np.zeros(len(numbers), np.int64)
    share = numbers.of(Choice.ROTATE90) / view.rotate90  # in [0, 1) if the view is turned
    return np.where(share < 1, 1 + np.floor(3 * share), 0).astype(np.int64)


def band_factors(view: View, numbers: RandomNumbers) -> Float64[np.ndarray, "N bands"]:
    """The brightness of each band on its own; 1 where a view has no jitter."""
    amount, drawn = view.jitter.bands, numbers.values[:, max(Choice) + 1 :]
    factors = max(0.0, 1 - amount) + (1 + amount - max(0.0, 1 - amount)) * drawn
    return np.where(numbers.chance(Choice.JITTER, view.jitter.p)[:, None], factors, 1.0)


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
