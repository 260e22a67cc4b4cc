"""Small images of one size, decoded once and kept in memory: their views are made a whole mini-batch at a time."""

from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from moco.data.decode import BadImage
from moco.data.images import Images
from moco.data.quarantine import Quarantine
from moco.data.threads import Abandoned, in_order

MAX_SIDE = 64  # [pixels]
MAX_MEMORY = 2**30  # [bytes] of all images together
CHUNK = 256  # images that a thread decodes at a time


@dataclass(frozen=True, eq=False)
class Small:
    """All n images; where `good` is False the image is bad, and its pixels are black."""

    pixels: UInt8[Tensor, "n 3 H W"]
    good: Bool[np.ndarray, " n"]


def preload_small(images: Images, quarantine: Quarantine, *, workers: int = 0) -> Small | None:
    """`images` in memory if all have one size of at most 64 x 64 pixels and take at most 1 GiB; otherwise None.

    Only the images decide, not the memory of the machine: what a run computes must not depend on where it runs.

    Raises:
        DataError: more bad images than `quarantine` bears with.
    """
    size = _first_size(images, quarantine)
    if size is None or max(size) > MAX_SIDE or len(images) * 3 * size[0] * size[1] > MAX_MEMORY:
        return None
    pixels = torch.zeros(len(images), 3, *size, dtype=torch.uint8)
    good = np.zeros(len(images), dtype=bool)

    def fill(some: range, gone: Event) -> bool:
        """Whether all of `some` have the size."""
        for index in some:
            if gone.is_set():
                raise Abandoned
            try:
                image = images.read(index)
            except BadImage as bad:
                quarantine.add(bad.name, bad.reason)
                continue
            if image.shape[:2] != size:
                return False
            pixels[index] = torch.from_numpy(image.transpose(2, 0, 1).copy())
            good[index] = True
        return True

    chunks = [range(start, min(start + CHUNK, len(images))) for start in range(0, len(images), CHUNK)]
    return Small(pixels, good) if all(in_order(fill, chunks, workers=workers)) else None


def _first_size(images: Images, quarantine: Quarantine) -> tuple[int, int] | None:
    """(height, width) of the first image that can be read."""
    for index in range(len(images)):
        try:
            return images.read(index).shape[:2]
        except BadImage as bad:
            quarantine.add(bad.name, bad.reason)
    return None
