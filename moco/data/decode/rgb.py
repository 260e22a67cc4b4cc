"""A Pillow image of any mode as upright RGB, by the written rule of docs/data.md.

Whatever the mode, the pixels are converted in strips of rows and written where they belong when the image is upright:
beside Pillow's own pixels (4 bytes each at most) there are only the 3 bytes of RGB.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, JpegImagePlugin

from moco.data.decode import tiff

MAX_PIXELS = 89_478_485  # of one image; Pillow's own limit, above which it only warns: 256 MiB of RGB
A_PIXEL = 9  # bytes of memory at most, for each pixel of the largest image: more in a pixel, fewer pixels
PILLOWS = 4.5  # bytes of a pixel in Pillow, at most, and some for what is converted
STRIP = 2**20  # pixels that are converted at once
PAPER = "white"  # what is seen through transparent pixels: what browsers and print show, and drawings are made for

Strip = UInt8[np.ndarray, "h w c"]  # c is 3, or 1 of greys

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}  # EXIF orientation -> what makes the pixels upright
_BACK = {6: 8, 8: 6}  # orientations whose turn is undone by another one; all others undo themselves


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A Pillow image of any mode, upright, as RGB. Raises what Pillow raises, and ValueError when it is too large."""
    check_size(*image.size, a_pixel=PILLOWS + _bytes_beside(image))  # before any pixel is decoded
    tiff.correct_planes(image)
    image.load()
    convert, turn = _converter(image), orientation(image)
    width, height = image.size
    pixels = np.empty((width, height, 3) if turn >= 5 else (height, width, 3), dtype=np.uint8)
    stored = _TURNS[_BACK.get(turn, turn)](pixels) if turn > 1 else pixels  # the same memory, as the file has the rows
    for top, strip in _strips(image):
        stored[top : top + strip.height] = convert(strip)
    return pixels


def check_size(width: int, height: int, *, a_pixel: float = A_PIXEL) -> None:
    """Raises ValueError for an image of too many pixels, each of which takes `a_pixel` bytes while it is decoded."""
    most = int(MAX_PIXELS * min(A_PIXEL / a_pixel, 1))
    if width * height > most:
        kind = f" (of this kind, whose decoder takes {a_pixel:.0f} bytes a pixel)" if most < MAX_PIXELS else ""
        raise ValueError(
            f"{width} x {height} pixels are more than the {most:,} allowed{kind}: make it smaller (to {int(most**0.5)} "
            "pixels a side, or fewer) or cut it into pieces"
        )


def _bytes_beside(image: Image.Image) -> float:
    """Bytes a pixel that a decoder holds beside Pillow's pixels, at most (tests/faults/large.py measures them)."""
    if image.format in ("WEBP", "AVIF"):
        return 12.5  # canvases and planes
    if isinstance(image, JpegImagePlugin.JpegImageFile) and "progressive" in image.info:
        sizes = [(across, down) for _, across, down, _ in image.layer]  # of each band, to one another
        whole = max(across for across, _ in sizes) * max(down for _, down in sizes)
        return 2 * sum(across * down for across, down in sizes) / whole  # all coefficients
    return tiff.bytes_of_a_piece(image) / max(image.width * image.height, 1)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or a block that cannot be read."""
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
        return turn if turn in _TURNS else 1
    except Exception:  # the pixels are sound: viewers show such files without turning them
        return 1


def turned(pixels: UInt8[np.ndarray, "h w 3"], turn: int) -> UInt8[np.ndarray, "H W 3"]:
    """`pixels` as stored in a file, turned upright by its EXIF orientation."""
    return _TURNS[turn](pixels).copy() if turn > 1 else pixels  # positive strides also where a side has 1 pixel


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in strips of STRIP pixels, each with the row that it begins at."""
    width, height = image.size
    rows = max(STRIP // width, 1)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _converter(image: Image.Image) -> Callable[[Image.Image], Strip]:
    """A function that converts a strip of `image` to RGB, or to grey. What the whole image decides is computed once."""
    if image.mode.startswith("I;16"):
        return _of_16_bits(image)
    if image.mode == "I":
        return _of_integers(image)
    if image.mode == "F":
        return _of_floats(image)
    if not image.has_transparency_data:
        return lambda strip: np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))  # which would copy it
    if tiff.has_false_alpha(image) or not any(_alpha_of(strip) for _, strip in _strips(image)):
        return lambda strip: np.asarray(_rgba(strip).convert("RGB"))  # as if it had no alpha
    return lambda strip: np.asarray(_on_paper(_rgba(strip)))


def _rgba(strip: Image.Image) -> Image.Image:
    return (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")


def _alpha_of(strip: Image.Image) -> int:
    """The greatest alpha."""
    return int(np.asarray(_rgba(strip).getchannel("A")).max())


def _on_paper(rgba: Image.Image) -> Image.Image:
    paper = Image.new("RGB", rgba.size, PAPER)
    paper.paste(rgba, mask=rgba)
    return paper


def _of_16_bits(image: Image.Image) -> Callable[[Image.Image], Strip]:
    """The high byte; one transparent value, if all pixels do not have it, is white."""
    hole = image.info.get("transparency", -1)
    if hole != -1 and all((np.asarray(strip) == hole).all() for _, strip in _strips(image)):
        hole = -1

    def convert(strip: Image.Image) -> Strip:
        values = np.asarray(strip)
        return _grey_bytes(np.where(values == hole, 255, values >> 8) if hole != -1 else values >> 8)

    return convert


def _of_integers(image: Image.Image) -> Callable[[Image.Image], Strip]:
    """Integers of 32 bits: as 16 bits where all fit into them, otherwise stretched from the least to the greatest."""
    dtype = np.uint32 if tiff.is_unsigned(image) else np.int32

    def values_of(strip: Image.Image) -> np.ndarray:
        return np.asarray(strip).view(dtype)

    extremes = [(values.min(), values.max()) for values in (values_of(strip) for _, strip in _strips(image))]
    low, high = float(min(low for low, _ in extremes)), float(max(high for _, high in extremes))
    if low >= 0 and high < 2**16:
        return lambda strip: _grey_bytes(values_of(strip) >> 8)
    return lambda strip: _grey_bytes(_stretched(values_of(strip).astype(np.float64), low, high))


def _of_floats(image: Image.Image) -> Callable[[Image.Image], Strip]:
    """Floats: 0 is black and 1 is white where all lie between; otherwise stretched. What is not finite is black."""
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        values = np.asarray(strip)
        known = values[np.isfinite(values)]
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    if low > high:
        raise ValueError("no pixel has a finite value")
    inside = low >= 0 and high <= 1

    def convert(strip: Image.Image) -> Strip:
        values = np.asarray(strip).astype(np.float64)
        finite = np.isfinite(values)
        known = values[finite]
        grey = np.zeros(values.shape)
        grey[finite] = np.rint(known * 255) if inside else _stretched(known, low, high)
        return _grey_bytes(grey)

    return convert


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`values` with `low` at 0 and `high` at 255; all 0 where they do not differ."""
    return np.rint((values - low) * (255 / (high - low))) if high > low else np.zeros(values.shape)


def _grey_bytes(values: np.ndarray) -> Strip:
    return values.astype(np.uint8)[..., None]
