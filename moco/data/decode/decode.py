"""Decode one image file to RGB pixels, by one rule for all kinds of files (docs/data.md).

Pillow decodes all kinds except two: PPM files (ppm.py), and plain JPEG files, which are decoded faster without it to
the same bits (jpeg.py). No global setting of Pillow is changed, so any number of threads may decode at once.
"""

import io
import os
import stat

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from moco.data.decode import jpeg, rgb
from moco.data.decode.limits import check_bounds, open_counted
from moco.data.decode.ppm import decode_ppm, is_ppm
from moco.data.decode.rgb import to_rgb
from moco.data.decode.tiff import File
from moco.data.decode.unreadable_kinds import name_unreadable
from moco.text import escape

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")  # by content, whatever the file is called
EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jpe", ".jfif", ".avif", ".ppm", ".pgm", ".pbm",
    ".pnm",
)  # fmt: skip  # of images in folders, upper or lower case
MAX_FILE_BYTES = 2**30  # of one file; some of Pillow's decoders read it into memory whole
IN_MEMORY_BYTES = 2**24  # smaller files are read into memory whole


class BadImage(Exception):
    """An image that cannot be used: its `name`, and the `reason` in a few words."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{escape(name)}: {reason}")
        self.name, self.reason = name, reason

    @property
    def system_error(self) -> OSError | None:
        """The error of the operating system, if the file could not be read; None if its content is bad."""
        cause = self.__cause__
        while isinstance(cause, BadImage):
            cause = cause.__cause__
        return cause if isinstance(cause, OSError) and cause.errno is not None else None  # Pillow's have no errno


def decode(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "H W 3"]:
    """The first frame of the file at `path`, upright, as RGB.

    Raises:
        BadImage: not a regular file, not of IMAGE_FORMATS, too large, damaged, cut short, or not readable at all.
    """
    try:
        with open_file(path) as file:
            return decode_file(file)
    except Exception as error:  # damaged files raise nearly everything: OSError, SyntaxError, struct.error, ...
        raise BadImage(os.fspath(path), reason_of(error)) from error


def open_file(path: str | os.PathLike[str]) -> File:
    """The file at `path`, open: read into memory, or on disk if it has more than IN_MEMORY_BYTES.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, is empty, or has more than MAX_BYTES.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        size = _size_of_regular(descriptor)
        data = _read_bytes(descriptor, size) if size <= IN_MEMORY_BYTES else None
    except BaseException:
        os.close(descriptor)
        raise
    if data is None:
        return open(descriptor, "rb")
    os.close(descriptor)
    return io.BytesIO(data)


def decode_file(file: File) -> UInt8[np.ndarray, "H W 3"]:
    """The first frame of an open file, upright, as RGB. Raises what Pillow raises; ValueError: too large."""
    if isinstance(file, io.BytesIO):
        data = file.getvalue()  # not a copy
        header = jpeg.read_header(data) if data.startswith(jpeg.JPEG_START) else None
        if header is not None and header.height * header.width <= rgb.MAX_PIXELS:
            pixels = jpeg.decode_plain(data, header)
            if pixels is not None:
                return rgb.turn_upright(pixels, orientation_of_jpeg(file)) if header.exif else pixels
    if is_ppm(file.read(3)):
        return decode_ppm(file)
    file.seek(0)
    check_bounds(file)
    try:
        with open_counted(file, IMAGE_FORMATS) as image:
            return to_rgb(image)
    except UnidentifiedImageError as error:
        if what := name_unreadable(file):
            raise ValueError(what) from error
        raise


def orientation_of_jpeg(file: File) -> int:
    """The EXIF orientation of a JPEG file, 1 to 8."""
    with Image.open(file, formats=["JPEG"]) as image:
        return rgb.orientation(image)


# opening must not wait for the other end of a FIFO, nor make a terminal the controlling one
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)


def _size_of_regular(descriptor: int) -> int:
    """The size of an open file. Raises ValueError if it is not a regular file, is empty, or is too large."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if not 0 < status.st_size <= MAX_FILE_BYTES:
        raise ValueError(f"{status.st_size} bytes: expected 1 to {MAX_FILE_BYTES}")
    return status.st_size


def _read_bytes(descriptor: int, size: int) -> bytes:
    """The first `size` bytes, or fewer if the file was shortened meanwhile."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def reason_of(error: Exception) -> str:
    """What is wrong with a file, without its path."""
    if isinstance(error, UnidentifiedImageError):
        return f"not a {', '.join(IMAGE_FORMATS[:-1])} or {IMAGE_FORMATS[-1]} file that Pillow can read"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more pixels than the {rgb.MAX_PIXELS:,} allowed: make it smaller, or cut it into pieces"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, OSError | ValueError) and str(error):
        return str(error)
    return f"damaged ({type(error).__name__}: {error})"
