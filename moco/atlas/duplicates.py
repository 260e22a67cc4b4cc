"""Near-duplicates by features: groups of images that are nearly the same to the encoder, and outliers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from moco.atlas.calibrate import Calibration, calibrate
from moco.atlas.collection import Collection
from moco.atlas.index import Index, build_index
from moco.atlas.whitening import Whitening
from moco.evaluate.progress import Progress
from moco.recipe import RecipeError

THRESHOLD = 0.95  # cosine similarity of whitened features, where no encoder is there to calibrate it
BATCH = 256  # queries at a time: bounds the number of pairs in memory


@dataclass(frozen=True)
class Group:
    """An image that is kept, and the images that are nearly the same."""

    keep: int
    others: Sequence[int]  # in their order
    similarities: Sequence[float]  # of each of the others to the kept one


@dataclass(frozen=True)
class NearDuplicates:
    """The near-duplicates of a collection."""

    groups: Sequence[Group]
    threshold: float
    method: str  # "exact", or how candidates were found
    calibration: Calibration | None  # of the threshold; None: it was given, or there was no encoder


def find_near_duplicates(
    collection: Collection, *, threshold: float | None = None, exact: bool | None = None,
    progress: Progress | None = None,
) -> NearDuplicates:  # fmt: skip
    """Groups of near-duplicates by the cosine similarity of whitened features.

    Args:
        threshold: None: calibrated by planted copies, or THRESHOLD where there is no encoder.
        exact: as of `build_index`.

    Raises:
        RecipeError: a threshold outside (0, 1].
    """
    check_threshold(threshold)
    progress = progress or Progress()
    progress.stage("whitening features")
    whitening = Whitening(collection.x)
    x = whitening(collection.x)
    progress.stage("index of features")
    index = build_index(x, exact=exact)
    calibration = None
    if threshold is None:
        progress.stage("calibrating the threshold by planted copies")
        calibration = calibrate(collection, whitening, index, x)
        threshold = THRESHOLD if calibration is None else calibration.threshold
    groups = group_near(x, threshold=threshold, index=index, progress=progress)
    return NearDuplicates(groups, threshold, index.name, calibration)


def check_threshold(threshold: float | None) -> None:
    """Raise RecipeError for a threshold outside (0, 1]."""
    if threshold is not None and not 0 < threshold <= 1:
        raise RecipeError(f"expected a threshold above 0 and at most 1, got {threshold}")


def group_near(
    x: Float32[np.ndarray, "n D"],
    *,
    threshold: float = THRESHOLD,
    index: Index | None = None,
    progress: Progress | None = None,
) -> list[Group]:
    """Groups of rows with at least this cosine similarity to the first row of their group.

    In the order of rows, each one that is in no group yet takes all later rows in no group that are near to it. So
    every image that is dropped is near to the one that is kept, and chains of similar images stay apart.
    """
    progress = progress or Progress()
    taken, groups = np.zeros(len(x), dtype=bool), list[Group]()
    copies = _copies(x, taken)  # identical features at once: a thousand black images would make a million pairs
    index = index or build_index(x)
    progress.stage("comparing", len(x))
    for start in range(0, len(x), BATCH):
        rows = np.flatnonzero(~taken[start : start + BATCH]) + start
        if len(rows):
            found = index.find_pairs(x[rows], threshold)
            later = found.rows > rows[found.queries]
            order = np.lexsort((found.rows[later], found.queries[later]))
            queries, hits, values = (column[later][order] for column in found)
            bounds = np.searchsorted(queries, np.arange(len(rows) + 1))
            for i, row in enumerate(rows.tolist()):
                if not taken[row]:
                    part = slice(bounds[i], bounds[i + 1])
                    groups += _group(row, hits[part], values[part], taken, copies)
        progress.add(min(BATCH, len(x) - start))
    return groups


def _group(
    row: int, hits: Int64[np.ndarray, "m"], values: Float32[np.ndarray, "m"], taken: np.ndarray,
    copies: dict[int, list[int]],
) -> list[Group]:  # fmt: skip
    """The group of `row`, if there is one. Its members are marked as taken."""
    members: dict[int, float] = dict.fromkeys(copies.get(row, ()), 1.0)
    for hit, value in zip(hits.tolist(), values.tolist(), strict=True):
        if not taken[hit]:
            taken[hit] = True
            members.update((one, value) for one in [hit, *copies.get(hit, ())])
    if not members:
        return []
    others = sorted(members)
    return [Group(row, others, [round(min(members[i], 1.0), 4) for i in others])]


def _copies(x: Float32[np.ndarray, "n D"], taken: np.ndarray) -> dict[int, list[int]]:
    """The later rows with exactly the features of a row, by that row. They are marked as taken."""
    first: dict[bytes, int] = {}
    copies: dict[int, list[int]] = {}
    hashes = x @ np.random.default_rng(0).normal(size=x.shape[1]).astype(np.float32)
    order = np.argsort(hashes, kind="stable")
    same = np.diff(hashes[order]) == 0
    for i in np.unique(np.concatenate([order[:-1][same], order[1:][same]])).tolist():
        row = first.setdefault(x[i].tobytes(), i)
        if row != i:
            copies.setdefault(row, []).append(i)
            taken[i] = True
    return copies


def outliers(similarities: Float32[np.ndarray, "n k"], count: int = 100) -> list[int]:
    """The rows that are least similar to their nearest neighbours, on average; the loneliest first."""
    if not similarities.size:
        return []
    mean: Any = similarities.mean(axis=1)
    return np.argsort(mean, kind="stable")[:count].tolist()
