"""Files that ask for far more memory or time than their pixels need: refused before Pillow makes what they ask for.

Pillow itself refuses more of it: text and profiles that unpack to more than 1 MiB, and 64 MiB of them together.
"""

import io
import itertools
import re
import struct
from collections.abc import Iterator

from moco.data.decode.tiff import File, read_directory

SEGMENTS = 1000  # of a JPEG file: Pillow joins those of one kind, in time that grows with their square
SCANS = 100  # of a JPEG file, where about 10 are usual: each goes over all pixels
PIXELS_A_BYTE = 8 * 64  # at most, of a JPEG file: Huffman codes take a bit or more for each block of 8 x 8
CHUNKS = 200_000  # of a PNG file, where 1 GiB in the usual pieces has 131,072: Pillow took 3 s for a million
PIECES = 100_000  # strips or tiles of a TIFF file: Pillow took 6 s and 300 MB for a million
BLOCK = 2**16  # bytes that are searched for marks at once
ENTRY = 2**26  # bytes of one entry of a TIFF file's directory: Pillow reads each, whether it needs it or not

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = range(0xC9, 0xD0)
_STRIPS, _TILES = 273, 324


def check_bounds(file: File) -> None:
    """Raises ValueError for a file that asks for too much; leaves `file` at its beginning. Other damage is passed."""
    start = file.read(8)
    if start.startswith(b"\xff\xd8\xff"):
        _check_jpeg(file)
    elif start == b"\x89PNG\r\n\x1a\n":
        _check_png(file)
    elif start.startswith((b"II", b"MM")):
        _check_tiff(file)
    file.seek(0)


def too_short_for(width: int, height: int, size: int) -> bool:
    """Whether `size` bytes of a JPEG file are too few for so many pixels."""
    return width * height > PIXELS_A_BYTE * size


def _check_jpeg(file: File) -> None:
    size, scans = file.seek(0, io.SEEK_END), 0
    file.seek(2)
    for number, (kind, length) in enumerate(_segments(file)):
        if number >= SEGMENTS:
            raise ValueError(f"more than {SEGMENTS:,} segments in a JPEG file")
        scans += kind == 0xDA
        if scans > SCANS:
            raise ValueError(f"more than {SCANS} scans in a JPEG file")
        if kind in _SOF and kind not in _ARITHMETIC and length >= 7:
            height, width = struct.unpack(">xHH", file.read(5))
            if too_short_for(width, height, size):
                raise ValueError(f"cut short: {size:,} bytes cannot hold {width} x {height} pixels")


_MARK = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a byte of a scan (FF 00), a restart (FF D0 to D7) or a filling


def _segments(file: File) -> Iterator[tuple[int, int]]:
    """(kind, length) of each segment to the end of the picture; `file` stands behind the length, and may be moved."""
    block, place = b"", file.tell()  # `block` is what follows `place`
    while True:
        found = _MARK.search(block)
        if found is None:
            place += max(len(block) - 1, 0)
            file.seek(place)
            block = file.read(BLOCK)
            if len(block) < 2:
                return
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


def _check_tiff(file: File) -> None:
    for tag, _, count, size, _ in read_directory(file).entries:
        if tag in (_STRIPS, _TILES) and count > PIECES:
            raise ValueError(f"{count:,} strips or tiles in a TIFF file: expected at most {PIECES:,}")
        if size > ENTRY:
            raise ValueError(f"an entry of {count:,} values in a TIFF file: expected at most {ENTRY:,} bytes")
