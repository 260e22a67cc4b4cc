"""Decode all bands of an image in full depth: TIFF by tifffile, NumPy arrays, and the other kinds by Pillow.

Nothing is converted: 16-bit integers stay what they are. `to_unit` maps each band to [0, 1] by a range of its own.
"""

import importlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from moco.data.decode import rgb
from moco.data.decode.limits import check_bounds, open_counted
from moco.data.decode.tiff import File, check_pages
from moco.text import extra

Raw = Shaped[np.ndarray, "H W C"]  # integers or floats, as stored
Bands = Float32[np.ndarray, "H W C"]  # in [0, 1]
Pixels = UInt8[np.ndarray, "H W 3"] | Bands  # RGB, or all bands
MAX_BANDS = 64
MAX_VALUES = 3 * rgb.MAX_PIXELS  # of one image: as many as the largest RGB image has
MAX_CHUNK = 2**28  # [bytes] of one strip or tile of a TIFF file, which is unpacked whole
NPY, TIFFS = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF", "PPM")  # that Pillow reads, without TIFF


def decode_bands(file: File) -> Raw:
    """All bands of an open file, upright.

    Raises:
        ValueError: too large, more than MAX_BANDS, or no image. What the libraries raise for damaged files.
        ImportError: a library of the extra `bands` is not installed.
    """
    start = file.read(8)
    file.seek(0)
    if start.startswith(NPY):
        return as_bands(_decode_npy(file), "a NumPy array", first=True)
    if start.startswith(TIFFS):
        return _decode_tiff(file)
    check_bounds(file)
    with open_counted(file, FORMATS) as image:
        rgb.check_memory(image)
        turn = rgb.orientation(image)
        if image.format == "PNG" and image.mode != "I;16" and _depth_of_png(file) == 16:
            return rgb.turn_upright(as_bands(_decode_deep_png(file), "a PNG file"), turn)
        plain = image if image.mode in ("L", "RGB", "RGBA", "CMYK", "I;16", "I", "F") else image.convert("RGB")
        return rgb.turn_upright(as_bands(np.asarray(plain), f"a {image.format} file"), turn)


def as_bands(values: np.ndarray, what: str, *, first: bool = False) -> Raw:
    """`values`, H x W or H x W x C, as H x W x C; with `first` also C x H x W, where C is less than H and W.

    Raises:
        ValueError: not numbers, not two or three axes, or more than MAX_BANDS.
    """
    if values.dtype.kind not in "uif" or values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(f"{what} of {values.dtype} {list(values.shape)}: expected numbers, H x W or H x W x C")
    if values.ndim == 2:
        values = values[:, :, None]
    elif first and values.shape[0] < min(values.shape[1:]):
        values = values.transpose(1, 2, 0)
    if values.shape[2] > MAX_BANDS:
        raise ValueError(f"{what} of {values.shape[2]} bands: expected at most {MAX_BANDS}")
    return values


def to_unit(values: Raw, ranges: Sequence[tuple[float, float]]) -> Bands:
    """Each band mapped to [0, 1] by its range (low, high). What lies outside is cut off; NaN counts as `low`.

    Raises:
        ValueError: another number of bands than `ranges`.
    """
    if values.shape[2] != len(ranges):
        raise ValueError(f"{values.shape[2]} bands: expected {len(ranges)}, as the recipe's data.bands has")
    exact = np.float64 if values.dtype.itemsize > 2 and values.dtype != np.float32 else np.float32
    low, high = np.array(ranges, dtype=exact).T
    unit = ((values.astype(exact) - low) / (high - low)).astype(np.float32, copy=False)
    np.nan_to_num(unit, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    return np.clip(unit, 0, 1, out=unit)


def to_picture(pixels: Pixels) -> UInt8[np.ndarray, "H W 3"]:
    """An image for people to look at: the first three bands as red, green and blue; one band as grey."""
    if pixels.dtype == np.uint8:
        return pixels
    shown = pixels[:, :, [0, 1, 2] if pixels.shape[2] >= 3 else [0, 0, 0]]
    return np.round(255 * shown).astype(np.uint8)


def _decode_npy(file: File) -> np.ndarray:
    """A .npy file. Its header is read first, so that a small file cannot claim much memory."""
    version = np.lib.format.read_magic(file)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("a NumPy array of objects: expected numbers")
    _check_values(shape)
    left = file.seek(0, io.SEEK_END)
    if np.prod(shape, dtype=object) * dtype.itemsize > left:
        raise ValueError(f"a NumPy array of {dtype} {list(shape)} in a file of {left} bytes: it is cut short")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _depth_of_png(file: File) -> int:
    """The bits of a channel."""
    file.seek(24)
    return file.read(1)[0]


def _decode_deep_png(file: File) -> np.ndarray:
    """A PNG file of 16 bits a channel, of which Pillow would keep 8."""
    file.seek(0)
    return _import_library("imagecodecs", "PNG files of 16 bits a channel").png_decode(file.read())


def _import_library(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{what} need {name}: {extra('bands')}") from error


def _decode_tiff(file: File) -> Raw:
    tifffile = _import_library("tifffile", "the bands of TIFF files")
    check_pages(file)
    with tifffile.TiffFile(file) as tiff:
        series: Any = tiff.series[0]
        axes, shape = str(series.axes), tuple(series.shape)
        _check_values(shape)
        for page in series.pages:
            if (
                page is not None
                and np.prod(getattr(page, "chunks", ()), dtype=object) * series.dtype.itemsize > MAX_CHUNK
            ):
                raise ValueError(f"TIFF with strips or tiles of more than {MAX_CHUNK // 2**20} MiB")
        return _ordered(series.asarray(maxworkers=1), axes)


def _ordered(values: np.ndarray, axes: str) -> Raw:
    """An array of tifffile's, whose axes have a letter each, as H x W x C."""
    long = [axis for axis, length in zip(axes, values.shape, strict=True) if length > 1 or axis in "YX"]
    others = [axis for axis in long if axis not in "YX"]
    if not {"Y", "X"} <= set(long) or len(others) > 1 or set(others) & {"T", "Z"}:
        sizes = ", ".join(f"{axis} {length}" for axis, length in zip(axes, values.shape, strict=True))
        raise ValueError(
            f"TIFF with the axes {sizes}: expected one plane (Y, X) with bands; store each plane as a file"
        )
    values = values.reshape([length for length, axis in zip(values.shape, axes, strict=True) if axis in long])
    order = [long.index(axis) for axis in ("Y", "X", *others)]
    values = values.transpose(order)
    values = values[:, :, None] if values.ndim == 2 else values
    if values.dtype.kind not in "uif" or values.shape[2] > MAX_BANDS:
        raise ValueError(f"TIFF of {values.shape[2]} bands of {values.dtype}: expected at most {MAX_BANDS}, of numbers")
    return values


def _check_values(shape: Sequence[int]) -> None:
    count = int(np.prod(shape, dtype=object))
    if not 0 < count <= MAX_VALUES:
        raise ValueError(f"an image of {count:,} values: expected 1 to {MAX_VALUES:,}; cut it into pieces")


def picture_bands(picture: Image.Image) -> Raw:
    """The bands of a Pillow image."""
    return as_bands(np.asarray(picture if picture.mode != "P" else picture.convert("RGB")), "a picture")
