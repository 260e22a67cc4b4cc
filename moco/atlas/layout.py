"""Places of images on a map: features N x D to N x 2. The same features and seed give the same map."""

import logging
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from moco.text import extra

FEWEST_FOR_MAP = 36  # different images for PaCMAP, which compares each with 10 near, 5 middle and 20 far ones
BLOCK = 2**14  # rows whose covariance is computed at a time


@dataclass(frozen=True, eq=False)
class Layout:
    """A map: one row for each image, in the square from -1 to 1, centred, with the aspect ratio of the method."""

    xy: Float32[np.ndarray, "n 2"]
    method: str  # with its version: "PaCMAP 0.9.1" or "PCA"
    note: str = ""  # why it is PCA; empty for PaCMAP


def layout(features: Float32[np.ndarray, "n D"], *, seed: int = 0) -> Layout:
    """Place images so that those with similar features are close together.

    PaCMAP (Wang et al., JMLR 22, 2021) if it is installed and there are at least 36 different images, otherwise the
    first two principal components. Only the direction of a feature counts, as for kNN. The number of threads changes
    nothing.

    Raises:
        ValueError: a feature that is not finite.
    """
    if not np.isfinite(features).all():
        raise ValueError("expected finite features, got NaN or infinite ones: the weights may be damaged")
    x = _directions(features)
    if len(np.unique(x, axis=0)) < FEWEST_FOR_MAP:
        return Layout(_scaled(pca(x)), "PCA", f"fewer than {FEWEST_FOR_MAP} different images")
    pacmap = _import_pacmap()  # takes seconds
    if pacmap is None:
        return Layout(_scaled(pca(x)), "PCA", f"PaCMAP is not installed ({extra('atlas')})")
    import threadpoolctl  # scikit-learn needs it, which PaCMAP needs

    with threadpoolctl.threadpool_limits(1):  # the sums of several threads differ in the last bit, and so would maps
        y = pacmap.PaCMAP(n_neighbors=10, random_state=seed).fit_transform(x, init=pca(x))
    return Layout(_scaled(y), f"PaCMAP {metadata.version('pacmap')}")


def pca(x: Float32[np.ndarray, "n D"], count: int = 2) -> Float32[np.ndarray, "n c"]:
    """The first principal components. Their signs are fixed: the largest entry of each axis is positive."""
    if not len(x):
        return np.zeros((0, count), dtype=np.float32)
    mean, axes = x.mean(axis=0, dtype=np.float64), np.zeros((x.shape[1], count))
    found = np.linalg.eigh(_covariance(x, mean)).eigenvectors[:, ::-1][:, :count]
    found = found * np.sign(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])])
    axes[:, : found.shape[1]] = found  # features of one dimension have no second axis
    blocks = [(x[start : start + BLOCK] - mean) @ axes for start in range(0, len(x), BLOCK)]
    return np.concatenate(blocks).astype(np.float32)


def _covariance(x: Float32[np.ndarray, "n D"], mean: Float64[np.ndarray, "D"]) -> Float64[np.ndarray, "D D"]:
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK] - mean
        total += block.T @ block
    return total / len(x)


def _directions(features: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
    """Each feature divided by its length; zeros stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1).astype(np.float32)


def _scaled(xy: Float32[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n 2"]:
    """Centred between the extremes of each axis, and divided by the larger half width."""
    if not len(xy):
        return xy.astype(np.float32)
    low, high = xy.min(axis=0), xy.max(axis=0)
    half = float((high - low).max()) / 2
    return ((xy - (low + high) / 2) / (half or 1)).astype(np.float32)


def _import_pacmap() -> Any:
    """The package PaCMAP, or None. It logs a line about its seed each time, which is no warning to the user."""
    try:
        import pacmap
    except ImportError:
        return None
    logging.getLogger("pacmap").setLevel(logging.ERROR)
    return pacmap
