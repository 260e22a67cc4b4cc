"""Decode a JPEG file at a half, a quarter or an eighth of its size, where its views need no more pixels.

libjpeg leaves out the high frequencies of each block of 8 x 8 pixels, which takes less time than computing all pixels
and averaging them. Divisors other than powers of two take longer than decoding all of it. Other kinds of files are
decoded whole.
"""

import io
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL.JpegImagePlugin import JpegImageFile

from moco.data.decode import jpeg, rgb
from moco.data.decode.bands import Pixels
from moco.data.decode.decode import IMAGE_FORMATS, BadImage, decode_file, open_file, orientation_of_jpeg, reason_of
from moco.data.decode.limits import check_bounds, open_counted
from moco.data.decode.tiff import File

DIVISORS = (8, 4, 2)  # of the sides, from the fastest on

Choose = Callable[[int, int], int]  # of (height, width) of the upright image: one of DIVISORS, or 1


class Scaled(NamedTuple):
    """An upright image whose sides were divided by `divisor`, and rounded up."""

    pixels: Pixels
    height: int  # [pixels] of the whole image
    width: int
    divisor: int = 1
    top: float = 0.0  # [pixels of `pixels`] where the whole image begins; above 0 where a turn puts what was rounded up
    left: float = 0.0


def whole(pixels: Pixels) -> Scaled:
    """An image that was not made smaller."""
    return Scaled(pixels, *pixels.shape[:2])


def largest_divisor(side: float, *, least: float) -> int:
    """The largest of DIVISORS that leaves at least `least` pixels of a side; 1 if none does."""
    return next((divisor for divisor in DIVISORS if side >= divisor * least), 1)


def decode_scaled(path: str | os.PathLike[str], choose: Choose) -> Scaled:
    """As `decode`, at the scale that `choose` gives for the size of the image. Raises BadImage."""
    try:
        with open_file(path) as file:
            return decode_file_scaled(file, choose)
    except Exception as error:
        raise BadImage(os.fspath(path), reason_of(error)) from error


def decode_file_scaled(file: File, choose: Choose) -> Scaled:
    """As `decode_file`, at the scale that `choose` gives. Raises what `decode_file` raises, of the same files."""
    start = file.read(len(jpeg.JPEG_START))
    file.seek(0)
    if start == jpeg.JPEG_START:
        data = file.getvalue() if isinstance(file, io.BytesIO) else b""  # not a copy
        header = jpeg.read_header(data)
        if header is not None and header.height * header.width > rgb.MAX_PIXELS:
            header = None
        try:
            found = _by_pillow(file, choose) if header is None else _by_libjpeg(file, data, header, choose)
        except Exception:  # damaged: decoding all of it says how, or finds pixels nevertheless
            found = None
        if found is not None:
            return found
        file.seek(0)
    return whole(decode_file(file))


def _by_libjpeg(file: File, data: bytes, header: jpeg.Header, choose: Choose) -> Scaled | None:
    """A plain JPEG file in memory. None for damage, and where `choose` gives 1."""
    turn = orientation_of_jpeg(file) if header.exif else 1
    divisor = choose(*_upright(header.height, header.width, turn))
    pixels = jpeg.decode_plain(data, header, divisor) if divisor > 1 else None
    return (
        None if pixels is None else _placed(rgb.turn_upright(pixels, turn), header.height, header.width, divisor, turn)
    )


def _by_pillow(file: File, choose: Choose) -> Scaled | None:
    """Any JPEG file. None for what Pillow does not make smaller, and where `choose` gives 1."""
    check_bounds(file)
    with open_counted(file, IMAGE_FORMATS) as image:
        if not isinstance(image, JpegImageFile):
            return None
        rgb.check_memory(image)  # of the whole image: the limits do not depend on the scale
        turn, (width, height) = rgb.orientation(image), image.size
        divisor = choose(*_upright(height, width, turn))
        if divisor == 1:
            return None
        image.draft(None, (width // divisor, height // divisor))
        if image.size != (-(-width // divisor), -(-height // divisor)):
            return None
        return _placed(rgb.to_rgb(image), height, width, divisor, turn)


def _upright(height: int, width: int, turn: int) -> tuple[int, int]:
    return (width, height) if turn >= 5 else (height, width)


def _placed(pixels: UInt8[np.ndarray, "h w 3"], height: int, width: int, divisor: int, turn: int) -> Scaled:
    """Upright `pixels` of an image that is stored with height x width pixels and turned by its EXIF orientation.

    The last row and column, of which only a part belongs to the image, may be the first ones after the turn.
    """
    below, beyond = -(-height // divisor) - height / divisor, -(-width // divisor) - width / divisor
    top = below if turn in (3, 4) else beyond if turn in (7, 8) else 0.0
    left = beyond if turn in (2, 3) else below if turn in (6, 7) else 0.0
    return Scaled(pixels, *_upright(height, width, turn), divisor, top, left)
