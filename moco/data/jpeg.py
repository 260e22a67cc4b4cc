"""Plain JPEG files by libjpeg-turbo itself (simplejpeg), bit for bit as Pillow decodes them; all others are Pillow's.

Pillow copies the pixels twice more, and took 2 to 3 times as long on photographs of 190,000 and 270,000 pixels.
"""

import functools
import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

START = b"\xff\xd8\xff"
_SOF, _SOS = (0xC0, 0xC1, 0xC2), 0xDA  # frames: baseline, extended, progressive; the first scan
_APP1, _APP2, _APP14 = 0xE1, 0xE2, 0xEE
_PASSED_OVER = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, restart interval, comment, applications' own


class Header(NamedTuple):
    """What stands before the first scan of a plain JPEG file."""

    height: int
    width: int
    components: int
    exif: bool  # has an EXIF or XMP block, which may say how the image must be turned


def read_header(data: bytes) -> Header | None:
    """The header of a plain JPEG file; None on any doubt: other kinds of files and frames, colours other than grey and
    YCbCr, several pictures in one, marks that are not understood, an end before the first scan."""
    frame, exif, adobe, place = b"", False, b"", 2
    while len(data) >= place + 4 and data[place] == 0xFF:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        start, place = place + 4, place + 2 + length
        if kind == _SOS:
            return _plain(frame, exif, adobe)
        if kind in _SOF and not frame:
            frame = data[start:place]
        elif kind not in _PASSED_OVER or length < 2:
            return None
        elif kind == _APP1:
            exif = True
        elif kind == _APP2 and data.startswith(b"MPF\0", start):
            return None
        elif kind == _APP14:
            adobe = data[start:place]
    return None


def _plain(frame: bytes, exif: bool, adobe: bytes) -> Header | None:
    if len(frame) < 6 or frame[0] != 8:  # [bits]
        return None
    height, width, components = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5]), frame[5]
    colours = components == 1 or (components == 3 and frame[6::3] == b"\1\2\3")  # libjpeg guesses from other numbers
    ycbcr = not adobe or (len(adobe) == 12 and adobe.startswith(b"Adobe") and adobe[11] == 1)
    return Header(height, width, components, exif) if height and width and colours and ycbcr else None


def decode_plain(data: bytes, header: Header) -> UInt8[np.ndarray, "H W 3"] | None:
    """The pixels as they are stored, not turned; None when libjpeg-turbo has any complaint, or is not there."""
    decoder = _decoder()
    if decoder is None:
        return None
    try:
        pixels = decoder(data, colorspace="RGB", strict=True)  # strict: a warning is an error
    except Exception:  # Pillow then says what is wrong
        return None
    return pixels if pixels.shape == (header.height, header.width, 3) else None


def opened(data: bytes) -> Image.Image:
    """The file as Pillow opens it, for what its header says; no pixel is decoded."""
    return Image.open(io.BytesIO(data), formats=("JPEG",))


@functools.cache
def _decoder() -> Callable[..., np.ndarray] | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError as error:
        warnings.warn(f"JPEG files are decoded by Pillow alone, which takes longer: {error}", stacklevel=2)
        return None
    return decode_jpeg
