"""Read arrays of numbers from MATLAB's .mat files of version 5, which MATLAB 6 and 7 write too.

scipy.io.loadmat (scipy 1.17) is not used, because some damaged files make it end the process by a segmentation fault.
MAT-File Format, The MathWorks: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

import struct
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np

from moco.transfer.readers.entries import AnnotationError, read_bytes

TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}  # of stored numbers
NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}  # of arrays
MATRIX, COMPRESSED, HEADER = 14, 15, 128
MOST_BYTES = 2**31  # of an array


def read_mat(file: Path) -> dict[str, np.ndarray]:
    """The arrays of real numbers by name. Other variables (texts, cells, structures) are left out.

    Raises:
        AnnotationError: the file does not exist or is damaged.
    """
    data = read_bytes(file)

    def fail(problem: str) -> NoReturn:
        raise AnnotationError(file, "", f"not a .mat file of version 5: {problem}")

    if len(data) < HEADER or data[126:128] not in (b"IM", b"MI"):
        fail("its header is missing (a file of version 7.3 is HDF5: save it with -v7)")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        arrays = [
            _array(data, place, kind, size, order) for place, kind, size in _elements(data, HEADER, len(data), order)
        ]
    except (ValueError, struct.error, zlib.error, OverflowError, MemoryError) as error:
        fail(str(error)[:100])
    return dict(one for one in arrays if one is not None)


def _elements(data: bytes, place: int, end: int, order: str) -> list[tuple[int, int, int]]:
    """The elements between `place` and `end`: where the content begins, its type, its size in bytes."""
    found: list[tuple[int, int, int]] = []
    while place + 8 <= end:
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # a small element: size and type in 4 bytes, content in the next 4
            kind, size, content, following = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        else:
            content = place + 8
            following = content + size + (0 if kind == COMPRESSED else -size % 8)
        if content + size > end or (following == place + 8 and size > 4):
            raise ValueError("an element is cut short")
        found.append((content, kind, size))
        place = following
    return found


def _array(data: bytes, place: int, kind: int, size: int, order: str) -> tuple[str, np.ndarray] | None:
    """The name and the numbers of a variable; None if it has something else than numbers."""
    if kind == COMPRESSED:
        unpacker = zlib.decompressobj()
        inner = unpacker.decompress(data[place : place + size], MOST_BYTES)
        elements = _elements(inner, 0, len(inner), order)
        return _array(inner, *elements[0], order) if elements and elements[0][1] == MATRIX else None
    if kind != MATRIX:
        return None
    parts = _elements(data, place, place + size, order)
    if len(parts) < 3 or parts[0][2] < 4:
        raise ValueError("a variable has no name or no size")
    flags = struct.unpack_from(f"{order}I", data, parts[0][0])[0]
    if flags & 0xFF not in NUMBERS or flags & 0x0800 or len(parts) < 4 or parts[3][1] not in TYPES:  # 0x0800: complex
        return None
    shape = np.frombuffer(data, f"{order}i4", parts[1][2] // 4, parts[1][0]).tolist()
    name = data[parts[2][0] : parts[2][0] + parts[2][2]].decode("ascii", "replace")
    stored = np.dtype(f"{order}{TYPES[parts[3][1]]}")
    values = np.frombuffer(data, stored, parts[3][2] // stored.itemsize, parts[3][0])
    if any(side < 0 for side in shape):
        raise ValueError(f"{name} has the shape {shape}")
    return name, values.reshape(shape, order="F").astype(NUMBERS[flags & 0xFF])
