"""Convert a Pillow image of any mode to upright RGB, by the rule in docs/data.md.

Pixels are converted in strips of rows and written directly to their place in the upright image. So memory holds only
Pillow's own pixels (at most 4 bytes each) and the 3 bytes of RGB.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, JpegImagePlugin

from moco.data.decode import tiff

MAX_PIXELS = 89_478_485  # of one image; Pillow's own limit, above which it only warns: 256 MiB of RGB
BYTES_PER_PIXEL = 9  # of memory, for an image of MAX_PIXELS. A kind that needs more may have fewer pixels
PILLOW_BYTES = 4.5  # per pixel: at most 4 in Pillow, and some for the strip that is converted
STRIP = 2**20  # pixels that are converted at once
BACKGROUND = "white"  # behind transparent pixels, as browsers and printers show them

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
_INVERSE = {6: 8, 8: 6}  # orientation -> the one that undoes it; all others undo themselves


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A Pillow image of any mode, upright, as RGB. Raises what Pillow raises, and ValueError when it is too large."""
    check_memory(image)  # before any pixel is decoded
    tiff.correct_planes(image)
    image.load()
    convert, turn = _converter(image), orientation(image)
    width, height = image.size
    pixels = np.empty((width, height, 3) if turn >= 5 else (height, width, 3), dtype=np.uint8)
    stored = (
        _TURNS[_INVERSE.get(turn, turn)](pixels) if turn > 1 else pixels
    )  # a view of `pixels` in the orientation of the file
    for top, strip in _strips(image):
        stored[top : top + strip.height] = convert(strip)
    return pixels


def check_memory(image: Image.Image) -> None:
    """Raise ValueError for an image whose decoding takes more memory than is allowed."""
    check_size(*image.size, bytes_per_pixel=PILLOW_BYTES + _decoder_bytes(image))


def check_size(width: int, height: int, *, bytes_per_pixel: float = BYTES_PER_PIXEL) -> None:
    """Raise ValueError for an image of too many pixels, where decoding takes `bytes_per_pixel` bytes of memory each."""
    most = int(MAX_PIXELS * min(BYTES_PER_PIXEL / bytes_per_pixel, 1))
    if width * height > most:
        kind = f" (of this kind, whose decoder takes {bytes_per_pixel:.0f} bytes a pixel)" if most < MAX_PIXELS else ""
        raise ValueError(
            f"{width} x {height} pixels are more than the {most:,} allowed{kind}: make it smaller (to {int(most**0.5)} "
            "pixels a side, or fewer) or cut it into pieces"
        )


def _decoder_bytes(image: Image.Image) -> float:
    """Most bytes per pixel that a decoder needs besides Pillow's pixels (tests/faults/huge_images.py measures them)."""
    if image.format in ("WEBP", "AVIF"):
        return 12.5  # their canvases and planes
    if isinstance(image, JpegImagePlugin.JpegImageFile) and "progressive" in image.info:
        sizes = [(across, down) for _, across, down, _ in image.layer]  # sampling factors of each component
        whole = max(across for across, _ in sizes) * max(down for _, down in sizes)
        return (
            2 * sum(across * down for across, down in sizes) / whole
        )  # a progressive decoder holds all coefficients, 2 bytes each
    return tiff.bytes_per_chunk(image) / max(image.width * image.height, 1)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the block cannot be read."""
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
        return turn if turn in _TURNS else 1
    except Exception:  # only the EXIF block is damaged; viewers show such files unturned
        return 1


def turn_upright(pixels: Shaped[np.ndarray, "h w c"], turn: int) -> Shaped[np.ndarray, "H W c"]:
    """`pixels` as stored in a file, turned upright by its EXIF orientation."""
    return (
        _TURNS[turn](pixels).copy() if turn > 1 else pixels
    )  # copy: strides are then positive, also where a side has 1 pixel


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, strip) of the image, in strips of STRIP pixels."""
    width, height = image.size
    rows = max(STRIP // width, 1)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _converter(image: Image.Image) -> Callable[[Image.Image], Strip]:
    """A function that converts a strip of `image` to RGB or grey. What depends on the whole image is computed once."""
    if image.mode.startswith("I;16"):
        return _of_16_bits(image)
    if image.mode == "I":
        return _of_integers(image)
    if image.mode == "F":
        return _of_floats(image)
    if not image.has_transparency_data:
        return lambda strip: np.asarray(
            strip if strip.mode == "RGB" else strip.convert("RGB")
        )  # convert would copy an RGB strip
    if tiff.has_false_alpha(image) or not any(_alpha_of(strip) for _, strip in _strips(image)):
        return lambda strip: np.asarray(_rgba(strip).convert("RGB"))  # as if it had no alpha
    return lambda strip: np.asarray(_on_background(_rgba(strip)))


def _rgba(strip: Image.Image) -> Image.Image:
    return (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")


def _alpha_of(strip: Image.Image) -> int:
    """The greatest alpha."""
    return int(np.asarray(_rgba(strip).getchannel("A")).max())


def _on_background(rgba: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", rgba.size, BACKGROUND)
    canvas.paste(rgba, mask=rgba)
    return canvas


def _of_16_bits(image: Image.Image) -> Callable[[Image.Image], Strip]:
    """The high byte. Pixels of the transparent value, if the file names one, are white, unless all pixels have it."""
    transparent = image.info.get("transparency", -1)
    if transparent != -1 and all((np.asarray(strip) == transparent).all() for _, strip in _strips(image)):
        transparent = -1

    def convert(strip: Image.Image) -> Strip:
        values = np.asarray(strip)
        return _grey_bytes(np.where(values == transparent, 255, values >> 8) if transparent != -1 else values >> 8)

    return convert


def _of_integers(image: Image.Image) -> Callable[[Image.Image], Strip]:
    """32-bit integers: treated as 16-bit where all values fit, otherwise stretched from the smallest to the largest."""
    dtype = np.uint32 if tiff.is_unsigned(image) else np.int32

    def values_of(strip: Image.Image) -> np.ndarray:
        return np.asarray(strip).view(dtype)

    extremes = [(values.min(), values.max()) for values in (values_of(strip) for _, strip in _strips(image))]
    low, high = float(min(low for low, _ in extremes)), float(max(high for _, high in extremes))
    if low >= 0 and high < 2**16:
        return lambda strip: _grey_bytes(values_of(strip) >> 8)
    return lambda strip: _grey_bytes(_stretched(values_of(strip).astype(np.float64), low, high))


def _of_floats(image: Image.Image) -> Callable[[Image.Image], Strip]:
    """Floats: 0 is black and 1 white where all lie in [0, 1]; otherwise stretched. NaN and infinity are black."""
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
