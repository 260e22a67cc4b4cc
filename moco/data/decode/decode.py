"""One image file as RGB pixels, by the same written rule for every kind of file (docs/data.md).

Pillow decodes, but for plain JPEG files, which come out the same and sooner without it (jpeg.py). Nothing here changes
a setting of Pillow, so any number of threads may decode at once, beside other users of it.
"""

import io
import os
import stat
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from moco.data.decode import jpeg
from moco.data.decode.limits import File, check_bounds
from moco.text import shown

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # what a file may be, whatever its name says
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")  # of images in folders, in any case
MAX_PIXELS = 89_478_485  # of one image; Pillow's own limit, above which it only warns: 256 MiB of RGB
MAX_BYTES = 2**30  # of one file; some of Pillow's readers take a file into memory whole
AT_ONCE = 2**24  # bytes of a file that is read into memory whole before its header is looked at
PAPER = "white"  # what is seen through transparent pixels: what browsers and print show, and drawings are made for

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}  # EXIF orientation -> what makes the pixels upright


class BadImage(Exception):
    """An image that cannot be used: its `name`, and the `reason` in a few words."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{shown(name)}: {reason}")
        self.name, self.reason = name, reason


def decode(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "H W 3"]:
    """The first frame of the file at `path`, upright, as RGB.

    Raises:
        BadImage: not a regular file, not of FORMATS, too large, damaged, cut short, or not readable at all.
    """
    try:
        with opened(path) as file:
            return decode_file(file)
    except Exception as error:  # damaged files raise nearly everything: OSError, SyntaxError, struct.error, ...
        raise BadImage(os.fspath(path), reason_of(error)) from error


def opened(path: str | os.PathLike[str]) -> File:
    """The file at `path`: in memory, or on the disk when it is longer than AT_ONCE.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, empty, or longer than MAX_BYTES.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        size = _size_of_regular(descriptor)
        data = _read(descriptor, size) if size <= AT_ONCE else None
    except BaseException:
        os.close(descriptor)
        raise
    if data is None:
        return open(descriptor, "rb")
    os.close(descriptor)
    return io.BytesIO(data)


def decode_file(file: File) -> UInt8[np.ndarray, "H W 3"]:
    """The first frame of an open file, upright, as RGB. Raises what Pillow raises, and ValueError: too large."""
    if isinstance(file, io.BytesIO):
        data = file.getvalue()  # not a copy
        header = jpeg.read_header(data) if data.startswith(jpeg.START) else None
        if header is not None and header.height * header.width <= MAX_PIXELS:
            pixels = jpeg.decode_plain(data, header)
            if pixels is not None:
                return _turned(pixels, file) if header.exif else pixels
    check_bounds(file)
    with Image.open(file, formats=FORMATS) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A Pillow image of any mode, upright, as RGB. Raises what Pillow raises, and ValueError when it is too large."""
    width, height = image.size
    if width * height > MAX_PIXELS:  # before any pixel is decoded
        raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS:,} allowed")
    image.load()
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        pixels = _coloured(np.where(values == image.info.get("transparency", -1), 255, values >> 8))
    elif image.mode == "I":
        pixels = _coloured(_grey_of_integers(np.asarray(image)))
    elif image.mode == "F":
        pixels = _coloured(_grey_of_floats(np.asarray(image).astype(np.float64)))
    else:
        pixels = _in_bands(image)
    return _upright(pixels, image)


def _turned(pixels: UInt8[np.ndarray, "h w 3"], file: File) -> UInt8[np.ndarray, "H W 3"]:
    """`pixels` of a JPEG file, upright."""
    with Image.open(file, formats=["JPEG"]) as source:
        return _upright(pixels, source)


# a FIFO has no other end to wait for, and a terminal does not become ours
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)


def _size_of_regular(descriptor: int) -> int:
    """Bytes of an open file. Raises ValueError for what is no file, is empty, or too large."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if not 0 < status.st_size <= MAX_BYTES:
        raise ValueError(f"{status.st_size} bytes: expected 1 to {MAX_BYTES}")
    return status.st_size


def _read(descriptor: int, size: int) -> bytes:
    """The first `size` bytes, or less of a file that has become shorter."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def _in_bands(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of 8 bits a channel as RGB on PAPER, band by band: a large one is in memory twice, not four times."""
    width, height = image.size
    rows = max(2**20 // width, 1)
    if rows >= height:
        return np.asarray(_on_paper(image))
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        pixels[top : top + rows] = np.asarray(_on_paper(image.crop((0, top, width, min(top + rows, height)))))
    return pixels


def _on_paper(image: Image.Image) -> Image.Image:
    """An image of 8 bits a channel as RGB, laid on PAPER where it has transparency."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    paper = Image.new("RGB", image.size, PAPER)
    paper.paste(rgba, mask=rgba)
    return paper


def _grey_of_integers(values: np.ndarray) -> np.ndarray:
    """Integers of mode I: as 16 bits where they fit into them, otherwise stretched."""
    if values.min() >= 0 and values.max() < 2**16:
        return values >> 8
    return _stretched(values.astype(np.float64))


def _grey_of_floats(values: Float64[np.ndarray, "H W"]) -> np.ndarray:
    """Floats: 0 is black and 1 is white where all lie between; otherwise stretched. What is not finite is black."""
    finite = np.isfinite(values)
    known = values[finite]
    if not known.size:
        raise ValueError("no pixel has a finite value")
    inside = known.min() >= 0 and known.max() <= 1
    grey = np.zeros(values.shape)
    grey[finite] = np.rint(known * 255) if inside else _stretched(known)
    return grey


def _stretched(values: np.ndarray) -> np.ndarray:
    """`values` with the least at 0 and the greatest at 255; all 0 where they do not differ."""
    low, high = values.min(), values.max()
    return np.rint((values - low) * (255 / (high - low))) if high > low else np.zeros(values.shape)


def _coloured(grey: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _upright(pixels: UInt8[np.ndarray, "h w 3"], source: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """`pixels` turned as the EXIF block of `source` says; a block that cannot be read says nothing."""
    try:
        turn = _TURNS.get(source.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the pixels are sound: viewers show such files as they lie
        turn = None
    return pixels if turn is None else turn(pixels).copy()  # with positive strides also where a side has 1 pixel


def reason_of(error: Exception) -> str:
    """What is wrong with a file, without its path."""
    if isinstance(error, UnidentifiedImageError):
        return f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file that Pillow can read"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more pixels than the {MAX_PIXELS:,} allowed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, OSError | ValueError) and str(error):
        return str(error)
    return f"damaged ({type(error).__name__}: {error})"
