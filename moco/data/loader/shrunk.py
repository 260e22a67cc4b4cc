"""Images shrunk when they are read, and kept in memory: a short run then decodes each image once, not in each epoch."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from moco.data.decode.scaled import Scaled, largest_divisor, whole
from moco.data.sources.images import Images, SameImages, forget, prefetch, read_scaled

SHRUNK_MEMORY = 2**31  # [bytes] of pixels that are kept


class ShrunkImages(SameImages):
    """`images`, of which those whose shorter side is longer than `side` pixels are shrunk to it. Threads may share it.

    Args:
        memory: [bytes] of shrunk images to keep; the rest is read again each time. 0: keep none.
        scaled: JPEG files are decoded at a half, a quarter or an eighth of their size where that leaves `side` pixels.
    """

    def __init__(self, images: Images, side: int, *, memory: int = SHRUNK_MEMORY, scaled: bool = False):
        self.images, self.side, self._left, self.scaled = images, side, memory, scaled
        self._kept: dict[int, UInt8[np.ndarray, "h w 3"]] = {}

    def prefetch(self, indices: Iterable[int]) -> None:
        prefetch(self.images, [int(i) for i in indices if int(i) not in self._kept])

    def forget(self) -> None:
        forget(self.images)

    def read(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image `index` as RGB, shrunk. Raises BadImage."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pixels = self._shrunk(index)
        if pixels.nbytes <= self._left:  # threads may overdraw this by an image each
            self._left -= pixels.nbytes
            self._kept[index] = pixels
        return pixels

    def _shrunk(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        if self.scaled:
            return shrink_scaled(read_scaled(self.images, index, self._divisor), self.side)
        return shrink(self.images.read(index), self.side)

    def _divisor(self, height: int, width: int) -> int:
        return largest_divisor(min(height, width), least=self.side)


def shrink(pixels: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image with a shorter side of `side` pixels and the same aspect; unchanged if it is not larger than that."""
    return shrink_scaled(whole(pixels), side)


def shrink_scaled(image: Scaled, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """The same of an image that was decoded smaller: it gets the size that the whole image would get."""
    shorter = min(image.height, image.width)
    if shorter <= side:
        return image.pixels
    size = (max(side, round(image.width * side / shorter)), max(side, round(image.height * side / shorter)))
    right, bottom = image.left + image.width / image.divisor, image.top + image.height / image.divisor
    box = (image.left, image.top, right, bottom)
    picture = Image.fromarray(image.pixels)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=3.0))
