"""Nearest neighbours among many features of length 1: exact by matrix products, or faster by faiss (extra `atlas`)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64

from moco.evaluate.knn import nearest

EXACT_UP_TO = 50_000  # rows: all pairs of so many take a minute at most
PROBES = 32  # cells that are searched for the nearest
PROBES_WITHIN = (
    8  # cells that are searched for all within a similarity; 4 found each of 1,000 copies of similarity 0.95
)
TRAINED_ON = 64  # rows for each cell, that k-means finds the cells from
ROWS = 2**15  # of an exact comparison at a time
SEED = 1234  # of k-means


class Hits(NamedTuple):
    """Pairs of a query and a row of the index."""

    queries: Int64[np.ndarray, "m"]
    rows: Int64[np.ndarray, "m"]
    similarities: Float32[np.ndarray, "m"]


class Exact:
    """All similarities, block by block. The reference, and what is used without faiss."""

    name = "exact"

    def __init__(self, x: Float32[np.ndarray, "n D"]):
        self.x = x

    def nearest(self, queries: Float32[np.ndarray, "q D"], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and rows of the k nearest of each query, q x k, the nearest first."""
        found = nearest(torch.from_numpy(self.x), torch.from_numpy(queries), k=k)
        return found.similarities.numpy(), found.indices.numpy()

    def find_pairs(self, queries: Float32[np.ndarray, "q D"], threshold: float) -> Hits:
        """All pairs with at least this similarity."""
        parts = list(self._find_pairs(queries, threshold))
        return Hits(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _find_pairs(self, queries: Float32[np.ndarray, "q D"], threshold: float) -> Iterator[Hits]:
        for start in range(0, len(self.x), ROWS):
            similarities = queries @ self.x[start : start + ROWS].T
            which, rows = np.nonzero(similarities >= threshold)
            yield Hits(which, rows + start, similarities[which, rows])


class Cells:
    """faiss: rows are in cells around the centres of k-means, and a query is compared with the rows of 32 cells."""

    name = "faiss, cells"

    def __init__(self, x: Float32[np.ndarray, "n D"], faiss: Any):
        n, dim = x.shape
        cells = max(1, int(2 * np.sqrt(n)))
        self.faiss = faiss
        self.index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        self.index.nprobe, self.index.cp.seed = PROBES, SEED
        chosen = np.random.default_rng(SEED).permutation(n)[: TRAINED_ON * cells]
        self.index.train(x[np.sort(chosen)])
        for start in range(0, n, ROWS):
            self.index.add(np.ascontiguousarray(x[start : start + ROWS]))

    def nearest(self, queries: Float32[np.ndarray, "q D"], k: int) -> tuple[np.ndarray, np.ndarray]:
        """As of `Exact`. Where fewer than k rows are in the searched cells, the row is -1."""
        return self.index.search(np.ascontiguousarray(queries), k)

    def find_pairs(self, queries: Float32[np.ndarray, "q D"], threshold: float) -> Hits:
        """As of `Exact`, among the rows of the searched cells."""
        near = self.faiss.SearchParametersIVF(nprobe=PROBES_WITHIN)
        limits, similarities, rows = self.index.range_search(
            np.ascontiguousarray(queries), np.nextafter(threshold, 0), params=near
        )
        which = np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
        return Hits(which, rows, similarities)


Index = Exact | Cells


def build_index(x: Float32[np.ndarray, "n D"], *, exact: bool | None = None) -> Index:
    """An index of features of length 1.

    Args:
        exact: None: up to 50,000 rows, and wherever faiss is not installed.
    """
    if exact is None:
        exact = len(x) <= EXACT_UP_TO
    faiss = None if exact else _import_faiss()
    return Exact(x) if faiss is None else Cells(x, faiss)


def neighbours_of_all(
    x: Float32[np.ndarray, "n D"], k: int, *, index: Index | None = None
) -> tuple[Float32[np.ndarray, "n m"], Int64[np.ndarray, "n m"]]:
    """Similarities and rows of the k nearest others of each row, the nearest first; fewer if there are not so many."""
    index, n = index or build_index(x), len(x)
    k = min(k, n - 1)
    similarities, rows = np.zeros((n, k), np.float32), np.zeros((n, k), np.int64)
    for start in range(0, n, ROWS):
        some = slice(start, min(start + ROWS, n))
        values, found = index.nearest(x[some], k + 1)
        itself = found == np.arange(some.start, some.stop)[:, None]
        itself[~itself.any(axis=1), -1] = True  # many identical images: it is not among the nearest, drop the last
        shape = (len(found), k)
        similarities[some], rows[some] = values[~itself].reshape(shape), found[~itself].reshape(shape)
    return similarities, rows


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError:
        return None
    return faiss
