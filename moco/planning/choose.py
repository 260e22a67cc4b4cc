"""Rules for a run within a time: how many images it can see, which network and view size, and how large a mini-batch.

They follow the costs that were measured on the machine. No label decides anything here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moco.recipes.auto import NETWORK_SIZES

MAX_EPOCHS = 800  # the longest schedule of MoCo v2
ENOUGH_EPOCHS = 200  # its standard schedule: a larger network is worth more than more epochs
MIN_STEPS = 2000  # below it the mini-batch is made smaller
MIN_BATCH = 32
FEWEST_STEPS = 100  # steps; a run with fewer is refused
FREE = 0.8  # a network that sees this share of the most that any sees costs nothing: reading is the bottleneck
NEEDED = {"tiny": 0, "small": 250_000, "medium": 500_000, "large": 1_500_000, "full": 20_000_000}  # images seen


@dataclass(frozen=True)
class ImageCost:
    """Seconds that an image takes in a run."""

    step: float  # each time it is seen
    first: float = 0.0  # more, the first time: read and decoded, and then kept in memory

    def seconds(self, seen: float, images: int) -> float:
        """Of a run that sees `seen` images, of `images` different files."""
        return seen * self.step + min(seen, images) * self.first

    def count_affordable(self, seconds: float, images: int) -> float:
        """How many images can be seen in that time; at most MAX_EPOCHS of them all."""
        seen = seconds / (self.step + self.first)
        if seen > images:
            seen = (seconds - images * self.first) / self.step
        return max(0.0, min(seen, MAX_EPOCHS * images))


def choose_scale(seen: Sequence[tuple[str, float]], images: int) -> str:
    """The largest scale that sees enough images; the first if none does.

    Args:
        seen: the scales that were measured, from the cheapest on, and how many images each can see in the time.
    """
    chosen, most = seen[0][0], max(count for _, count in seen)
    for scale, count in seen:
        if count >= NEEDED[scale] or count >= ENOUGH_EPOCHS * images or count >= FREE * most:
            chosen = scale
    return chosen


def choose_batch(scale: str, seen: float, images: int) -> int:
    """A power of two: the scale's mini-batch, smaller where the run would have fewer than MIN_STEPS steps."""
    wanted = min(NETWORK_SIZES[scale].batch, max(MIN_BATCH, seen / MIN_STEPS), max(4, images // 3))
    return 1 << (math.floor(wanted).bit_length() - 1)


def choose_shrink(side: int, size: int, images: int, memory: int) -> int | None:
    """[pixels] of the shorter side of images that are kept in memory; None: they are small, or do not fit.

    Args:
        side: [pixels] of the shorter side now.
        size: [pixels] of a view.
        memory: [bytes] that may be used.
    """
    for factor in (2, 1.5, 1.25):
        shorter = round(factor * size)
        if side > shorter and memory_of(images, shorter) <= memory:
            return shorter
    return None


def memory_of(images: int, side: int) -> int:
    """[bytes] that images with this shorter side take, if they are photographs of 4:3."""
    return images * side * side * 4  # side x 4/3 side x 3 bytes
