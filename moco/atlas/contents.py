"""The contents of an atlas: places, neighbours, clusters, near-duplicates and outliers of images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int8, Int64

from moco.atlas.collection import Collection
from moco.atlas.duplicates import NearDuplicates, find_near_duplicates, outliers
from moco.atlas.index import Index, build_index, neighbours_of_all
from moco.atlas.layout import Layout, layout
from moco.diagnose.signals import k_means
from moco.evaluate.progress import Progress

NEIGHBOURS = 12  # of each image
MAP_CLUSTERS = 12
OUTLIERS = 100
DIMENSIONS = 64  # of the features in the page
LEVELS = 127  # of int8
CLUSTERED = 20_000  # images that k-means finds the centres from


@dataclass(frozen=True, eq=False)
class CategoryColumn:
    """A property with a few values: a class, a folder, a cluster."""

    name: str
    values: Sequence[str]
    codes: Int64[np.ndarray, "n"]  # index into `values`


@dataclass(frozen=True, eq=False)
class NumberColumn:
    """A property that is a number."""

    name: str
    unit: str  # "bytes", or "s" since 1970
    numbers: Float64[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Contents:
    """All that an atlas shows. Rows are those of the collection."""

    collection: Collection
    layout: Layout
    index: Index
    neighbours: Int64[np.ndarray, "n k"]  # the nearest first
    similarities: Float32[np.ndarray, "n k"]
    properties: Sequence[CategoryColumn | NumberColumn]  # images can be coloured by each
    near_duplicates: NearDuplicates
    outliers: Sequence[int]  # rows, the one that is least similar to its neighbours first


def compute_contents(
    collection: Collection,
    *,
    seed: int = 0,
    clusters: int = MAP_CLUSTERS,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Contents:
    """The contents of an atlas. The same features, seed and settings give the same contents."""
    progress = progress or Progress()
    index = build_index(collection.x)
    progress.stage("placing images on the map")
    places = layout(collection.x, seed=seed)
    progress.stage("neighbours")
    similarities, rows = neighbours_of_all(collection.x, NEIGHBOURS, index=index)
    progress.stage("clusters")
    properties = [*_of_images(collection), _clusters(collection.x, clusters)]
    near = find_near_duplicates(collection, threshold=threshold, progress=progress)
    lonely = outliers(similarities, OUTLIERS) if similarities.shape[1] else []
    return Contents(collection, places, index, rows, similarities, properties, near, lonely)


def _of_images(collection: Collection) -> list[CategoryColumn | NumberColumn]:
    """The label, folder, size and date of each image; without images, the folder in its name."""
    found, images, ids = list[CategoryColumn | NumberColumn](), collection.images, collection.ids
    if images is not None and images.labels is not None:
        found.append(CategoryColumn("label", images.classes, images.labels[ids]))
    folders = [os.path.dirname(name) for name in collection.names]
    names, codes = np.unique(np.array([*folders, ""], dtype=object).astype(str), return_inverse=True)
    codes = codes[:-1].astype(np.int64)
    used, codes = np.unique(codes, return_inverse=True)
    folder = CategoryColumn("folder", [str(names[i]) or "." for i in used], codes.astype(np.int64))
    if len(used) > 1 and not (found and _same_partition(found[0], folder)):
        found.append(folder)
    if images is not None:
        found.append(NumberColumn("file size", "bytes", images.sizes[ids].astype(np.float64)))
        found.append(NumberColumn("date of file", "s", images.mtimes[ids] / 1e9))
    return found


def _same_partition(a: CategoryColumn | NumberColumn, b: CategoryColumn) -> bool:
    """Whether two properties divide the images in the same way."""
    if not isinstance(a, CategoryColumn):
        return False
    pairs = len({*zip(a.codes.tolist(), b.codes.tolist(), strict=True)})
    return pairs == len(np.unique(a.codes)) == len(np.unique(b.codes))


def _clusters(x: Float32[np.ndarray, "n D"], count: int) -> CategoryColumn:
    """Clusters of k-means, the largest first. The centres are those of at most CLUSTERED random images."""
    rng = np.random.default_rng(0)
    some = x if len(x) <= CLUSTERED else x[np.sort(rng.permutation(len(x))[:CLUSTERED])]
    centres = k_means(torch.from_numpy(some), min(count, len(some)))[1].numpy()
    half_squares = (centres**2).sum(axis=1) / 2  # the nearest centre c has the largest x.c - |c|^2 / 2
    which = np.concatenate(
        [(x[start : start + 2**15] @ centres.T - half_squares).argmax(axis=1) for start in range(0, len(x), 2**15)]
    )
    sizes = np.bincount(which, minlength=len(centres))
    rank = np.argsort(np.argsort(-sizes, kind="stable"), kind="stable")
    used = int((sizes > 0).sum())
    return CategoryColumn("cluster", [f"cluster {i + 1}" for i in range(used)], rank[which].astype(np.int64))


def compact(x: Float32[np.ndarray, "n D"], dimensions: int = DIMENSIONS) -> Int8[np.ndarray, "n d"]:
    """Features with fewer dimensions as int8, whose cosine similarities are nearly those of `x`.

    They are the components along the largest eigenvectors of x^T x, without centring, each row scaled to 127.
    """
    moment = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), 2**14):
        block = x[start : start + 2**14].astype(np.float64)
        moment += block.T @ block
    axes = np.linalg.eigh(moment).eigenvectors[:, ::-1][:, :dimensions].astype(np.float32)
    reduced = x @ axes
    largest = np.abs(reduced).max(axis=1, keepdims=True)
    return np.rint(reduced * (LEVELS / np.where(largest > 0, largest, 1))).astype(np.int8)


def z_order(xy: Float32[np.ndarray, "n 2"]) -> Int64[np.ndarray, "n"]:
    """The rows in the order of a Z-curve (Morton) through the map: images that are near on it are near in the order."""
    cells = np.clip((xy.astype(np.float64) + 1) / 2 * 65535, 0, 65535).astype(np.uint64)
    keys = np.zeros(len(xy), dtype=np.uint64)
    for bit in range(16):
        for axis in range(2):
            keys |= ((cells[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(2 * bit + axis)
    return np.argsort(keys, kind="stable")
