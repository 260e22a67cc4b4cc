"""Nearest neighbours among a run's own images, by its encoder and by raw pixels."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from moco.data.sources.images import DataError
from moco.evaluate.knn import nearest
from moco.report.pictures import Neighbours, neighbour_sheet
from moco.report.sample import ImageSample

QUERIES, NEAREST = 6, 8


def draw_own_neighbours(out: Path, sample: ImageSample) -> None:
    """Write a PNG of the nearest neighbours of a few images among a sample.

    If the images are in class folders, the queries are of different classes, and neighbours are marked right or wrong.

    Raises:
        DataError: fewer than two images.
    """
    queries, labels = first_queries(sample), sample.labels
    neighbours: list[Neighbours] = []
    for name, rows in neighbour_rows(sample, queries).items():
        pictures = [[sample.crops[i] for i in row] for row in rows]
        neighbours.append(Neighbours(name, pictures, correct(sample, queries, rows)))
    captions = None if labels is None else [sample.classes[int(label)] for label in labels[queries]]
    title = f"The nearest of {len(sample):,} of the run's images"
    neighbour_sheet(out, [sample.crops[i] for i in queries], neighbours=neighbours, labels=captions, title=title)


def first_queries(sample: ImageSample) -> Int64[np.ndarray, " q"]:
    """The first image of each of the first classes, up to QUERIES; without classes the first images, in random order.

    Raises:
        DataError: fewer than two images.
    """
    if len(sample) < 2:
        raise DataError(f"expected at least 2 images that can be read, got {len(sample)}")
    return _first_of_each(np.arange(len(sample)) if sample.labels is None else sample.labels)


def neighbour_rows(sample: ImageSample, queries: Int64[np.ndarray, " q"]) -> dict[str, Int64[np.ndarray, "q k"]]:
    """The rows of the nearest others of each query, the nearest first, by the name of the features."""
    return {
        name: _without_itself(nearest(x, x[queries], k=NEAREST + 1).indices.numpy(), queries)
        for name, x in sample.features.items()
    }


def correct(
    sample: ImageSample, queries: Int64[np.ndarray, " q"], rows: Int64[np.ndarray, "q k"]
) -> list[list[bool]] | None:
    """Whether each neighbour is of its query's class; None without classes."""
    labels = sample.labels
    return None if labels is None else (labels[rows] == labels[queries, None]).tolist()


def _first_of_each(labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " q"]:
    """The first image of each of the first classes, up to QUERIES."""
    return np.sort(np.unique(labels, return_index=True)[1])[:QUERIES]


def _without_itself(rows: Int64[np.ndarray, "q k"], queries: Int64[np.ndarray, " q"]) -> Int64[np.ndarray, "q k-1"]:
    """The neighbours of each query, without the query. With identical images the query may not come first."""
    others = [[i for i in row if i != query][: rows.shape[1] - 1] for row, query in zip(rows, queries, strict=True)]
    return np.array(others, dtype=np.int64)
