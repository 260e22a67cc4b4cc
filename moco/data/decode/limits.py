"""Refuse files that need far more memory or time than their pixels justify, before Pillow allocates memory for them.

Pillow itself limits text and profiles in PNG files: each may unpack to 1 MiB, all together to 64 MiB.
"""

import io
import itertools
import re
import struct
from collections.abc import Iterator
from typing import IO, Any, cast, no_type_check

from PIL import Image

from moco.data.decode.tiff import File, read_directory

MAX_SEGMENTS = 1000  # of a JPEG file: Pillow joins those of one kind, in quadratic time
MAX_SCANS = 100  # of a JPEG file; about 10 are usual. Each scan covers all pixels
MAX_PIXELS_PER_BYTE = 8 * 64  # of a JPEG file: each block of 8 x 8 pixels takes at least one bit
MAX_CHUNKS = 200_000  # of a PNG file; 1 GiB in chunks of the usual size has 131,072. Pillow took 3 s for a million
MAX_STRIPS = 100_000  # strips or tiles of a TIFF file: Pillow took 6 s and 300 MB for a million
MAX_READS = (
    2_000_000  # by Pillow of one file; some hundred are usual. It searches for markers and unpacks RLE byte by byte
)
MAX_WEBP_BYTES = 2**26  # of a WebP or AVIF file, which Pillow holds in memory twice
SCAN_BYTES_PER_PIXEL, SCAN_BYTES_BASE = 64, 2**20  # most bytes of scans in a JPEG file; the worst need 27 per pixel
SEARCH_BLOCK = 2**16  # [bytes] searched for markers at once
MAX_ENTRY_BYTES = 2**26  # of one entry of a TIFF file's directory: Pillow reads every entry, needed or not

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = range(0xC9, 0xD0)
_STRIPS, _TILES = 273, 324


def check_bounds(file: File) -> None:
    """Raise ValueError for a file beyond the limits. Does not detect other damage. Leaves `file` at its beginning."""
    start = file.read(12)
    if start.startswith(b"\xff\xd8\xff"):
        _check_jpeg(file)
    elif start.startswith(b"\x89PNG\r\n\x1a\n"):
        file.seek(8)
        _check_png(file)
    elif start.startswith((b"II", b"MM")):
        _check_tiff(file)
    elif start[8:] == b"WEBP" or start[4:8] == b"ftyp":
        _check_webp(file)
    file.seek(0)


def open_counted(file: File, formats: tuple[str, ...]) -> Image.Image:
    """Open `file` with Pillow. Its reads are counted: after MAX_READS it raises ValueError."""
    return Image.open(cast(IO[bytes], _Counted(file)), formats=formats)


class _Counted:
    def __init__(self, file: File):
        self._file, self._left = file, MAX_READS

    @no_type_check  # tests check the types of every call, and this is called two million times
    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError(
                f"more than {MAX_READS:,} reads for one image: the file is damaged, or of a kind that is slow to read "
                "(BMP with RLE): save it again, as PNG"
            )
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def too_short_for(width: int, height: int, size: int) -> bool:
    """Whether a JPEG file of `size` bytes cannot hold width x height pixels."""
    return width * height > MAX_PIXELS_PER_BYTE * size


def _check_jpeg(file: File) -> None:
    size, segments, scans, pixels, end = file.seek(0, io.SEEK_END), 0, 0, None, None
    file.seek(2)
    for kind, length in _segments(file):
        if end is not None and file.tell() > end:
            raise ValueError(
                "more data in a JPEG file than its pixels can need: the file is damaged, by truncation or overwriting"
            )
        segments, scans = segments + (kind != 0), scans + (kind == 0xDA)
        if segments > MAX_SEGMENTS:
            raise ValueError(f"more than {MAX_SEGMENTS:,} segments in a JPEG file")
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans in a JPEG file")
        if kind in _SOF and kind not in _ARITHMETIC and length >= 7:
            height, width = struct.unpack(">xHH", file.read(5))
            if too_short_for(width, height, size):
                raise ValueError(f"cut short: {size:,} bytes cannot hold {width} x {height} pixels")
            pixels = width * height
        if kind == 0xDA and end is None and pixels is not None:
            end = file.tell() + SCAN_BYTES_PER_PIXEL * pixels + SCAN_BYTES_BASE


_MARKER = re.compile(
    rb"\xff[\x01-\xcf\xd8-\xfe]"
)  # not an escaped byte (FF 00), a restart marker (FF D0 to D7) or padding (FF FF)


def _segments(file: File) -> Iterator[tuple[int, int]]:
    """(kind, length) of each segment until the end of the image, and (0, 0) after each SEARCH_BLOCK of other bytes.

    At each yield, `file` is positioned after the length or the block. The caller may read from it.
    """
    block, place = b"", file.tell()  # `block` is what follows `place`
    while True:
        found = _MARKER.search(block)
        if found is None:
            place += max(len(block) - 1, 0)
            file.seek(place)
            block = file.read(SEARCH_BLOCK)
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
        if number >= MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS:,} chunks in a PNG file")
        file.seek(int.from_bytes(head[:4]) + 4, io.SEEK_CUR)


def _check_webp(file: File) -> None:
    size = file.seek(0, io.SEEK_END)
    if size > MAX_WEBP_BYTES:
        raise ValueError(
            f"{size:,} bytes of WebP, AVIF or the like: expected at most {MAX_WEBP_BYTES:,}, as it is "
            "read into memory whole: save it as PNG or JPEG"
        )


def _check_tiff(file: File) -> None:
    for tag, _, count, size, _ in read_directory(file).entries:
        if tag in (_STRIPS, _TILES) and count > MAX_STRIPS:
            raise ValueError(f"{count:,} strips or tiles in a TIFF file: expected at most {MAX_STRIPS:,}")
        if size > MAX_ENTRY_BYTES:
            raise ValueError(f"an entry of {count:,} values in a TIFF file: expected at most {MAX_ENTRY_BYTES:,} bytes")
