"""Refuse files that need far more memory or time than their pixels do, before Pillow allocates anything for them.

Pillow itself refuses others: text and profiles that unpack to more than 1 MiB, and 64 MiB of them together.
"""

import io
import itertools
import re
import struct
from collections.abc import Iterator
from typing import IO, Any, cast

from PIL import Image

from moco.data.decode.tiff import File, read_directory

SEGMENTS = 1000  # of a JPEG file: Pillow joins those of one kind, in time that grows with their square
SCANS = 100  # of a JPEG file, where about 10 are usual: each goes over all pixels
PIXELS_A_BYTE = 8 * 64  # at most, of a JPEG file: Huffman codes take a bit or more for each block of 8 x 8
CHUNKS = 200_000  # of a PNG file, where 1 GiB in the usual pieces has 131,072: Pillow took 3 s for a million
PIECES = 100_000  # strips or tiles of a TIFF file: Pillow took 6 s and 300 MB for a million
READS = (
    2_000_000  # by Pillow of one file, where some hundred are usual: it looks for marks, or unpacks RLE, byte by byte
)
WHOLE = 2**26  # bytes of a WebP or AVIF file, which Pillow reads into memory whole, twice
CODED, SLACK = 64, 2**20  # bytes of scans in a JPEG file, at most: for each pixel, and beside; the worst need 27
BLOCK = 2**16  # bytes that are searched for marks at once
ENTRY = 2**26  # bytes of one entry of a TIFF file's directory: Pillow reads each, whether it needs it or not

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = range(0xC9, 0xD0)
_STRIPS, _TILES = 273, 324


def check_bounds(file: File) -> None:
    """Raise ValueError for a file beyond the limits. Other damage passes. Leaves `file` at its beginning."""
    start = file.read(12)
    if start.startswith(b"\xff\xd8\xff"):
        _check_jpeg(file)
    elif start.startswith(b"\x89PNG\r\n\x1a\n"):
        file.seek(8)
        _check_png(file)
    elif start.startswith((b"II", b"MM")):
        _check_tiff(file)
    elif start[8:] == b"WEBP" or start[4:8] == b"ftyp":
        _check_whole(file)
    file.seek(0)


def open_counted(file: File, formats: tuple[str, ...]) -> Image.Image:
    """Pillow's image of `file`, which raises ValueError after READS reads."""
    return Image.open(cast(IO[bytes], _Counted(file)), formats=formats)


class _Counted:
    def __init__(self, file: File):
        self._file, self._left = file, READS

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError(
                f"more than {READS:,} reads for one image: the file is damaged, or of a kind that is slow to read "
                "(BMP with RLE): save it again, as PNG"
            )
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def too_short_for(width: int, height: int, size: int) -> bool:
    """Whether `size` bytes of a JPEG file are too few for so many pixels."""
    return width * height > PIXELS_A_BYTE * size


def _check_jpeg(file: File) -> None:
    size, segments, scans, pixels, end = file.seek(0, io.SEEK_END), 0, 0, None, None
    file.seek(2)
    for kind, length in _segments(file):
        if end is not None and file.tell() > end:
            raise ValueError("more data in a JPEG file than its pixels can need: it was cut short, or written over")
        segments, scans = segments + (kind != 0), scans + (kind == 0xDA)
        if segments > SEGMENTS:
            raise ValueError(f"more than {SEGMENTS:,} segments in a JPEG file")
        if scans > SCANS:
            raise ValueError(f"more than {SCANS} scans in a JPEG file")
        if kind in _SOF and kind not in _ARITHMETIC and length >= 7:
            height, width = struct.unpack(">xHH", file.read(5))
            if too_short_for(width, height, size):
                raise ValueError(f"cut short: {size:,} bytes cannot hold {width} x {height} pixels")
            pixels = width * height
        if kind == 0xDA and end is None and pixels is not None:
            end = file.tell() + CODED * pixels + SLACK


_MARK = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a byte of a scan (FF 00), a restart (FF D0 to D7) or a filling


def _segments(file: File) -> Iterator[tuple[int, int]]:
    """(kind, length) of each segment to the end of the picture, and (0, 0) after each BLOCK of other bytes.

    `file` stands behind the length, or the block, and may be moved.
    """
    block, place = b"", file.tell()  # `block` is what follows `place`
    while True:
        found = _MARK.search(block)
        if found is None:
            place += max(len(block) - 1, 0)
            file.seek(place)
            block = file.read(BLOCK)
            if len(block) < 2:
                return
            yield 0, 0
            continue
        place, kind = place + found.end(), found[0][1]
        file.seek(place)
        length = int.from_bytes(file.read(2))
        if kind == 0xD9:
            return
        yield kind, length
        place, block = place + max(length, 2), b""


def _check_png(file: File) -> None:
    for number in itertools.count():
        head = file.read(8)
        if len(head) < 8:
            return
        if number >= CHUNKS:
            raise ValueError(f"more than {CHUNKS:,} chunks in a PNG file")
        file.seek(int.from_bytes(head[:4]) + 4, io.SEEK_CUR)


def _check_whole(file: File) -> None:
    size = file.seek(0, io.SEEK_END)
    if size > WHOLE:
        raise ValueError(
            f"{size:,} bytes of WebP, AVIF or the like: expected at most {WHOLE:,}, as it is read into memory whole: "
            "save it as PNG or JPEG"
        )


def _check_tiff(file: File) -> None:
    for tag, _, count, size, _ in read_directory(file).entries:
        if tag in (_STRIPS, _TILES) and count > PIECES:
            raise ValueError(f"{count:,} strips or tiles in a TIFF file: expected at most {PIECES:,}")
        if size > ENTRY:
            raise ValueError(f"an entry of {count:,} values in a TIFF file: expected at most {ENTRY:,} bytes")
