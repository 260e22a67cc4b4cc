"""Small images of one size are kept in memory once they have been read: their views are then made many in one call."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8

from moco.data.sources.images import Images

MAX_SIDE = 64  # [pixels]
MAX_MEMORY = 2**30  # [bytes] of all images together


class Kept:
    """The bytes of those of n images that were read and have one size; any number of threads may read.

    Args:
        size: (height, width) of the images that are kept.
    """

    def __init__(self, count: int, size: tuple[int, int]):
        self.pixels: UInt8[np.ndarray, "n H W 3"] = np.zeros((count, *size, 3), dtype=np.uint8)  # no memory until used
        self.here: Bool[np.ndarray, " n"] = np.zeros(count, dtype=bool)

    def read(self, index: int, read: Callable[[int], UInt8[np.ndarray, "H W 3"]]) -> UInt8[np.ndarray, "H W 3"]:
        """Image `index`: from memory, or by `read`, and then kept if it has the size. Raises what `read` raises."""
        if self.here[index]:
            return self.pixels[index]
        image = read(index)
        if image.shape == self.pixels.shape[1:]:
            self.pixels[index] = image
            self.here[index] = True  # only now: another thread may look
        return image


def kept_for(images: Images, size: tuple[int, int] | None) -> Kept | None:
    """Where to keep `images`, which seem to have this size, or None if they are too large."""
    if size is None or max(size) > MAX_SIDE or len(images) * 3 * size[0] * size[1] > MAX_MEMORY:
        return None
    return Kept(len(images), size)
