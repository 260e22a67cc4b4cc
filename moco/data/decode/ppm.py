"""Decode PBM, PGM and PPM files (netpbm's P1 to P6): a text header, then the pixels.

Pillow converts all but the most common kinds value by value in Python, which takes minutes for the largest images.
"""

import re

import numpy as np
from jaxtyping import UInt8

from moco.data.decode.rgb import STRIP, check_size
from moco.data.decode.tiff import File

HEADER = 4096  # [bytes] longest header, comments included
PLAIN = 2**24  # [bytes] longest file whose pixels are decimal numbers; takes 0.5 s

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"


def is_ppm(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a PBM, PGM or PPM file."""
    return re.match(rb"P[1-6][\s#]", start) is not None


def decode_ppm(file: File) -> UInt8[np.ndarray, "H W 3"]:
    """The first image of the file. 8-bit values are unchanged, 16-bit ones give the high byte, others are scaled.

    Raises:
        ValueError: damaged, cut short, or too large.
    """
    file.seek(0)
    head = file.read(HEADER)
    kind, numbers = head[1] - ord("0"), 2 if head[1] in b"14" else 3
    found = re.match(rb"P[1-6]" + (_GAP + rb"(\d{1,9})") * numbers + rb"\s", head)
    if found is None:
        raise ValueError(f"a PPM file without a header of {numbers} numbers in its first {HEADER:,} bytes")
    width, height, greatest = (*map(int, found.groups()), 1)[:3]
    if not (width and height and 0 < greatest < 2**16):
        raise ValueError(f"a PPM file of {width} x {height} pixels with values up to {greatest:,}")
    check_size(width, height)
    file.seek(found.end())
    channels, table = 3 if kind in (3, 6) else 1, _table(greatest, inverted=kind in (1, 4))
    if kind <= 3:
        return _decimal_pixels(file, (height, width, channels), table, separated=kind != 1)
    return _binary_pixels(file, (height, width, channels), table, bits=1 if kind == 4 else 8 if greatest < 256 else 16)


def _table(greatest: int, *, inverted: bool) -> UInt8[np.ndarray, " values"]:
    """Lookup table from value to byte. Values above `greatest` are clipped. `inverted`: single bits, 1 is black."""
    if inverted:
        return np.array([255, 0], dtype=np.uint8)
    size = 256 if greatest < 256 else 2**16
    values = np.minimum(np.arange(size), greatest)
    return (values >> 8 if greatest == 2**16 - 1 else np.rint(values * 255 / greatest)).astype(np.uint8)


def _binary_pixels(
    file: File, shape: tuple[int, int, int], table: UInt8[np.ndarray, " values"], *, bits: int
) -> UInt8[np.ndarray, "H W 3"]:
    height, width, channels = shape
    stride, rows = (width * channels * bits + 7) // 8, max(STRIP // width, 1)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        wanted = min(rows, height - top)
        data = np.frombuffer(file.read(wanted * stride), dtype=np.uint8)
        if len(data) < wanted * stride:
            raise ValueError(f"cut short: expected {height} rows of {width} pixels")
        values = np.unpackbits(data.reshape(wanted, stride), axis=1, count=width) if bits == 1 else data
        values = values.view(">u2") if bits == 16 else values
        pixels[top : top + wanted] = table[values].reshape(wanted, width, channels)
    return pixels


def _decimal_pixels(
    file: File, shape: tuple[int, int, int], table: UInt8[np.ndarray, " values"], *, separated: bool
) -> UInt8[np.ndarray, "H W 3"]:
    """Pixels written as decimal numbers. Single bits need not be separated."""
    text, count = file.read(PLAIN + 1), int(np.prod(shape))
    if len(text) > PLAIN:
        raise ValueError(f"more than {PLAIN:,} bytes of decimal numbers: store it as a binary PPM (P4 to P6) or a PNG")
    text = re.sub(rb"#[^\r\n]*", b"", text)
    if not re.fullmatch(rb"[\s\d]*", text):
        raise ValueError("expected only numbers as pixels, got other characters")
    if separated:
        values = np.array(text.split()[:count], dtype=np.int64) if text.strip() else np.empty(0, np.int64)
    else:
        digits = np.frombuffer(re.sub(rb"\s", b"", text), dtype=np.uint8)[:count]
        values = digits.astype(np.int64) - ord("0")
    if len(values) < count:
        raise ValueError(f"cut short: expected {count:,} values, got {len(values):,}")
    return np.repeat(table[np.minimum(values, len(table) - 1)].reshape(shape), 3 // shape[2], axis=2)
