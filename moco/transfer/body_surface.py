"""The body surface for DensePose's scores: vertices with part, U and V, and geodesic distances between them.

It is read from three files that DensePose's authors publish for research: SMPL_subdiv.mat, SMPL_SUBDIV_TRANSFORM.mat
and Pdist_matrix.pkl. The last one is a pickle of one array. It is not loaded as a pickle, because that could run any
code; the bytes of the array are mapped from the file.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64

from moco.transfer.readers.entries import AnnotationError, read_bytes
from moco.transfer.readers.mat import read_mat

PARTS = 24
HEAD = 2**16  # [bytes] maximum that a pickle has before its array
LENGTHS = {b"T": 4, b"B": 4, b"\x8e": 8}  # opcodes of long byte strings, and the size of their length [bytes]
SURFACE_FILES = ("SMPL_subdiv.mat", "SMPL_SUBDIV_TRANSFORM.mat", "Pdist_matrix")


@dataclass(frozen=True)
class BodySurface:
    """n vertices, and the distances between the m vertices of a coarser mesh."""

    u: Float64[np.ndarray, "n"]
    v: Float64[np.ndarray, "n"]
    part: Int64[np.ndarray, "n"]  # 1 to 24
    coarse: Int64[np.ndarray, "n"]  # the vertex of the coarser mesh that each belongs to
    distances: Float[np.ndarray, "pairs"]  # [m] of vertices i > j, at i (i - 1) / 2 + j

    def nearest(
        self, part: Int64[np.ndarray, "p"], u: Float64[np.ndarray, "p"], v: Float64[np.ndarray, "p"]
    ) -> Int64[np.ndarray, "p"]:
        """For each point, the coarse vertex of the nearest vertex (in U and V) of its part; -1 without a part."""
        result = np.full(len(part), -1, dtype=np.int64)
        for number in np.unique(part):
            vertices, points = np.flatnonzero(self.part == number), np.flatnonzero(part == number)
            if len(vertices):
                across = u[points, None] - self.u[None, vertices]
                down = v[points, None] - self.v[None, vertices]
                result[points] = self.coarse[vertices[(across**2 + down**2).argmin(1)]]
        return result

    def geodesics(self, one: Int64[np.ndarray, "p"], other: Int64[np.ndarray, "p"]) -> Float64[np.ndarray, "p"]:
        """The distances between pairs of coarse vertices [m]; infinite if one is -1."""
        result = np.full(len(one), np.inf)
        known = (one >= 0) & (other >= 0)
        high, low = np.maximum(one, other)[known], np.minimum(one, other)[known]
        apart = high > low
        place = np.where(apart, high * (high - 1) // 2 + low, 0)
        result[known] = np.where(apart, self.distances[place], 0)
        return result


def read_body_surface(folder: Path) -> BodySurface:
    """Read the surface from the three files in a folder. The distances may be in Pdist_matrix.pkl or .npy.

    Raises:
        AnnotationError: a file is missing or damaged, or does not fit the others.
    """
    mesh_file, index_file = folder / SURFACE_FILES[0], folder / SURFACE_FILES[1]
    mesh, index = read_mat(mesh_file), read_mat(index_file)
    names = ("U_subdiv", "V_subdiv", "Part_ID_subdiv")
    if missing := [name for name in names if name not in mesh]:
        raise AnnotationError(mesh_file, missing[0], "has no variable of this name")
    if "index" not in index:
        raise AnnotationError(index_file, "index", "has no variable of this name")
    u, v, part = (mesh[name].reshape(-1).astype(np.float64) for name in names)
    coarse = index["index"].reshape(-1).astype(np.int64) - 1
    if not len(u) == len(v) == len(part) == len(coarse) or not len(u):
        raise AnnotationError(mesh_file, "", f"has {len(u)} vertices, {index_file.name} {len(coarse)}")
    if not (np.isfinite(u).all() and np.isfinite(v).all() and np.isin(part, range(1, PARTS + 1)).all()):
        raise AnnotationError(mesh_file, "", f"expected finite U and V, and parts 1 to {PARTS}")
    distances, file = _distances(folder)
    count = int(coarse.max()) + 1
    if coarse.min() < 0 or len(distances) != count * (count - 1) // 2:
        raise AnnotationError(
            file, "", f"has {len(distances):,} distances; {count:,} vertices have {count * (count - 1) // 2:,} pairs"
        )
    return BodySurface(u, v, part.astype(np.int64), coarse, distances)


def _distances(folder: Path) -> tuple[np.ndarray, Path]:
    file = folder / f"{SURFACE_FILES[2]}.npy"
    if not file.is_file():
        file = folder / f"{SURFACE_FILES[2]}.pkl"
        return _mapped(file), file
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False).reshape(-1), file
    except (ValueError, OSError, EOFError) as error:
        raise AnnotationError(file, "", f"cannot be read ({str(error)[:100]})") from error


def _mapped(file: Path) -> np.ndarray:
    """Map the array in a pickle from the file, where its bytes are the same as in memory."""
    if not file.is_file():
        read_bytes(file)  # raises
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(HEAD)
    kinds = [kind for kind in ("f4", "f8") if kind.encode() in head]
    for place in range(len(head) - 9):
        width = LENGTHS.get(head[place : place + 1])
        if width is None:
            continue
        length, begin = int.from_bytes(head[place + 1 : place + 1 + width], "little"), place + 1 + width
        rest = size - begin - length
        if length > size // 2 and 0 < rest < HEAD and len(kinds) == 1 and length % int(kinds[0][1]) == 0:
            dtype = np.dtype(f"<{kinds[0]}")
            return np.memmap(file, dtype, "r", begin, (length // dtype.itemsize,))
    raise AnnotationError(file, "", "is not a pickle of one array of numbers; save the array with numpy.save as .npy")
