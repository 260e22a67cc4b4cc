"""Read arrays of numbers from MATLAB's .mat files of version 5, which MATLAB 6 and 7 write too.

scipy.io.loadmat (scipy 1.17) is not used, because some damaged files make it end the process by a segmentation fault.
MAT-File Format, The MathWorks: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np

from moco.transfer.readers.entries import AnnotationError, read_bytes

T = TypeVar("T")
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
MATRIX, COMPRESSED, HEADER, CELLS, STRUCT = 14, 15, 128, 1, 2
MOST_BYTES = 2**31  # of an array


def read_mat(file: Path) -> dict[str, np.ndarray]:
    """The arrays of real numbers by name. Other variables (texts, cells, structures) are left out.

    Raises:
        AnnotationError: the file does not exist or is damaged.
    """
    return _read(file, _array)


def read_cells(file: Path) -> dict[str, list[np.ndarray]]:
    """The cell arrays whose cells are all arrays of real numbers, by their names; cells in the order of the file.

    Raises:
        AnnotationError: no such file, or a damaged one.
    """
    return _read(file, _cells)


def read_structs(file: Path) -> dict[str, dict[str, np.ndarray]]:
    """The structures by name, each with its fields that are arrays of real numbers; other fields are left out.

    An array of several structures has no fields here.

    Raises:
        AnnotationError: no such file, or a damaged one.
    """
    return _read(file, _struct)


def _read(file: Path, read: Callable[[bytes, int, int, str], tuple[str, T] | None]) -> dict[str, T]:
    """What `read` makes of each variable, by name."""
    data = read_bytes(file)

    def fail(problem: str) -> NoReturn:
        raise AnnotationError(file, "", f"not a .mat file of version 5: {problem}")

    if len(data) < HEADER or data[126:128] not in (b"IM", b"MI"):
        fail("its header is missing (a file of version 7.3 is HDF5: save it with -v7)")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        matrices = [_matrix(data, *element, order) for element in _elements(data, HEADER, len(data), order)]
        found = [read(*one, order) for one in matrices if one is not None]
    except (ValueError, struct.error, zlib.error, OverflowError, MemoryError) as error:
        fail(str(error)[:100])
    return dict(one for one in found if one is not None)


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


def _matrix(data: bytes, place: int, kind: int, size: int, order: str) -> tuple[bytes, int, int] | None:
    """The bytes that hold a variable, where it begins in them and its size; None for an element that is none."""
    if kind == COMPRESSED:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(data[place : place + size], MOST_BYTES)
        elements = _elements(data, 0, len(data), order)
        place, kind, size = elements[0] if elements else (0, 0, 0)
    return (data, place, size) if kind == MATRIX else None


def _parts(data: bytes, place: int, size: int, order: str) -> tuple[list[tuple[int, int, int]], int, list[int], str]:
    """The elements of a variable, its flags, its shape and its name."""
    parts = _elements(data, place, place + size, order)
    if len(parts) < 3 or parts[0][2] < 4:
        raise ValueError("a variable has no name or no size")
    flags = struct.unpack_from(f"{order}I", data, parts[0][0])[0]
    shape = np.frombuffer(data, f"{order}i4", parts[1][2] // 4, parts[1][0]).tolist()
    return parts, flags, shape, data[parts[2][0] : parts[2][0] + parts[2][2]].decode("ascii", "replace")


def _array(data: bytes, place: int, size: int, order: str) -> tuple[str, np.ndarray] | None:
    """Name and numbers of a variable; None where it holds something else."""
    parts, flags, shape, name = _parts(data, place, size, order)
    if flags & 0xFF not in NUMBERS or flags & 0x0800 or len(parts) < 4 or parts[3][1] not in TYPES:  # 0x0800: complex
        return None
    stored = np.dtype(f"{order}{TYPES[parts[3][1]]}")
    values = np.frombuffer(data, stored, parts[3][2] // stored.itemsize, parts[3][0])
    if any(side < 0 for side in shape):
        raise ValueError(f"{name} has the shape {shape}")
    return name, values.reshape(shape, order="F").astype(NUMBERS[flags & 0xFF])


def _cells(data: bytes, place: int, size: int, order: str) -> tuple[str, list[np.ndarray]] | None:
    """Name and cells of a variable; None where it is no cell array; no cells where one holds something else."""
    parts, flags, _, name = _parts(data, place, size, order)
    if flags & 0xFF != CELLS:
        return None
    cells = [_array(data, begin, length, order) for begin, kind, length in parts[3:] if kind == MATRIX]
    return name, [one[1] for one in cells if one is not None] if all(one is not None for one in cells) else []


def _struct(data: bytes, place: int, size: int, order: str) -> tuple[str, dict[str, np.ndarray]] | None:
    """Name and fields of a variable; None where it is no structure."""
    parts, flags, shape, name = _parts(data, place, size, order)
    if flags & 0xFF != STRUCT:
        return None
    if len(parts) < 5 or parts[3][2] != 4:
        raise ValueError(f"the structure {name} has no names of fields")
    length = struct.unpack_from(f"{order}i", data, parts[3][0])[0]
    begin, _, size_of_names = parts[4]
    if length < 1 or size_of_names % length:
        raise ValueError(f"the structure {name} has names of {length} bytes")
    names = [data[at : at + length].split(b"\0")[0].decode("ascii", "replace") for at in
             range(begin, begin + size_of_names, length)]  # fmt: skip
    if len(parts) - 5 != len(names) or any(side != 1 for side in shape):
        return name, {}
    fields: dict[str, np.ndarray] = {}
    for field, (at, kind, length_of_field) in zip(names, parts[5:], strict=True):
        found = _array(data, at, length_of_field, order) if kind == MATRIX and length_of_field else None
        if found is not None:
            fields[field] = found[1]
    return name, fields
