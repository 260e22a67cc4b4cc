"""Decode plain JPEG files by libjpeg-turbo (simplejpeg), bit for bit as Pillow does; Pillow decodes all others.

Pillow copies the pixels two more times: in a measurement on 7 photographs it took 1.6 times as long (median; 1.3 to 5).
"""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from moco.data.decode.limits import MAX_SCANS, MAX_SEGMENTS, too_short_for

JPEG_START = b"\xff\xd8\xff"
_PROGRESSIVE = 0xC2
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)  # baseline, extended and progressive
_SOS = 0xDA  # start of a scan
_APP1, _APP2, _APP14 = 0xE1, 0xE2, 0xEE
_DAMAGE = ("Corrupt JPEG data", "Premature end")  # how libjpeg-turbo's warnings about damage begin
_SKIPPED = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, restart interval, comment, APPn


class Header(NamedTuple):
    """The part of a plain JPEG file before its first scan."""

    height: int
    width: int
    components: int
    exif: bool  # has an EXIF or XMP block, which may hold an orientation


def read_header(data: bytes) -> Header | None:
    """The header of a plain JPEG file. None for all that Pillow must decode: other kinds of files and frames, colours
    other than grey and YCbCr, several pictures in one file, unknown markers, an end before the first scan."""
    frame, coding, exif, adobe, place = b"", 0, False, b"", 2
    for _ in range(MAX_SEGMENTS):
        if len(data) < place + 4 or data[place] != 0xFF:
            return None
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        start, place = place + 4, place + 2 + length
        if kind == _SOS:
            if not frame or start == len(data):
                return None
            whole = coding != _PROGRESSIVE and data[start] == frame[5]  # this scan has all components
            few = whole or data.count(b"\xff\xda", place) < MAX_SCANS
            return _plain_header(frame, exif, adobe, len(data)) if few else None
        if kind in _FRAMES and not frame and length >= 8:
            frame, coding = data[start:place], kind
        elif kind not in _SKIPPED or length < 2:
            return None
        elif kind == _APP1:
            exif = True
        elif kind == _APP2 and data.startswith(b"MPF\0", start):
            return None
        elif kind == _APP14:
            adobe = data[start:place]
    return None


def _plain_header(frame: bytes, exif: bool, adobe: bytes, size: int) -> Header | None:
    height, width, components = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5]), frame[5]
    colours = components == 1 or (components == 3 and frame[6::3] == b"\1\2\3")  # libjpeg guesses from other numbers
    ycbcr = not adobe or (len(adobe) == 12 and adobe.startswith(b"Adobe") and adobe[11] == 1)
    known = frame[0] == 8 and colours and ycbcr  # frame[0]: bits per sample
    sound = height and width and not too_short_for(width, height, size)
    return Header(height, width, components, exif) if known and sound else None


def decode_plain(data: bytes, header: Header, divisor: int = 1) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels as stored, without the EXIF orientation; None if libjpeg-turbo warns, or is not installed.

    Args:
        divisor: 1, 2, 4 or 8, by which libjpeg-turbo divides the sides; they are rounded up.
    """
    decoder = _decoder()
    if decoder is None:
        return None
    height, width = -(-header.height // divisor), -(-header.width // divisor)
    smaller = {} if divisor == 1 else {"min_height": height, "min_width": width}
    try:
        pixels = decoder(data, colorspace="RGB", strict=True, **smaller)  # strict: a warning is an error
    except Exception:  # Pillow then decodes it or says what is wrong
        return None
    return pixels if pixels.shape == (height, width, 3) else None


@functools.cache
def _decoder() -> Callable[..., np.ndarray] | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError as error:
        warnings.warn(
            f"JPEG files are decoded by Pillow, which is slower, because simplejpeg cannot be imported: {error}",
            stacklevel=2,
        )
        return None
    return decode_jpeg


def damage_warning(data: bytes) -> str:
    """The warning of libjpeg-turbo about a JPEG file that it decodes nevertheless; empty if there is none."""
    decoder = _decoder()
    if decoder is None or not data.startswith(JPEG_START):
        return ""
    try:
        decoder(data, colorspace="GRAY", strict=True)
    except ValueError as error:
        return str(error) if str(error).startswith(_DAMAGE) else ""  # otherwise a kind of JPEG that only Pillow reads
    return ""
