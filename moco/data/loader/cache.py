"""Cache in memory: small images of one size are read once; then one call makes the views of many of them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8

from moco.data.sources.images import Images

MAX_SIDE = 64  # [pixels]
MAX_MEMORY = 2**30  # [bytes] of all images together


class ImageCache:
    """The pixels of those of n images that were read and have the size (height, width). Threads may share it."""

    def __init__(self, count: int, size: tuple[int, int]):
        self.pixels: UInt8[np.ndarray, "n H W 3"] = np.zeros((count, *size, 3), dtype=np.uint8)  # no memory until used
        self.filled: Bool[np.ndarray, " n"] = np.zeros(count, dtype=bool)

    def read(self, index: int, read: Callable[[int], UInt8[np.ndarray, "H W 3"]]) -> UInt8[np.ndarray, "H W 3"]:
        """Image `index` from memory, or by `read`; then it is stored if it has the size. Raises what `read` raises."""
        if self.filled[index]:
            return self.pixels[index]
        image = read(index)
        if image.shape == self.pixels.shape[1:]:
            self.pixels[index] = image
            self.filled[index] = True  # after the pixels: another thread may be looking
        return image


def cache_for(images: Images, size: tuple[int, int] | None) -> ImageCache | None:
    """A cache for `images` of about this size; None if they are too large, or the size is not known."""
    if size is None or max(size) > MAX_SIDE or len(images) * 3 * size[0] * size[1] > MAX_MEMORY:
        return None
    return ImageCache(len(images), size)
