"""Images shrunk when they are read, and kept in memory: a short run then decodes each image once, not in each epoch."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from moco.data.sources.images import Images

MEMORY = 2**31  # [bytes] of pixels that are kept


class ShrunkImages:
    """`images`, of which those whose shorter side is longer than `side` pixels are shrunk to it. Threads may share it.

    Args:
        memory: [bytes] of shrunk images to keep; the rest is read again each time. 0: keep none.
    """

    def __init__(self, images: Images, side: int, *, memory: int = MEMORY):
        self.images, self.side, self._left = images, side, memory
        self._kept: dict[int, UInt8[np.ndarray, "h w 3"]] = {}

    @property
    def names(self) -> Sequence[str]:
        return self.images.names

    @property
    def labels(self) -> Int64[np.ndarray, "n"] | None:
        return self.images.labels

    @property
    def classes(self) -> Sequence[str]:
        return self.images.classes

    @property
    def sizes(self) -> Int64[np.ndarray, "n"]:
        return self.images.sizes

    @property
    def mtimes(self) -> Int64[np.ndarray, "n"]:
        return self.images.mtimes

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image `index` as RGB, shrunk. Raises BadImage."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pixels = shrink(self.images.read(index), self.side)
        if pixels.nbytes <= self._left:  # threads may overdraw this by an image each
            self._left -= pixels.nbytes
            self._kept[index] = pixels
        return pixels


def shrink(pixels: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image with a shorter side of `side` pixels and the same aspect; unchanged if it is not larger than that."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    if shorter <= side:
        return pixels
    size = (max(side, round(width * side / shorter)), max(side, round(height * side / shorter)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))
