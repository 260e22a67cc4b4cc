"""Features in which near-duplicates stand out from images that are only of one kind."""

from typing import Any

import numpy as np
from jaxtyping import Float32

from moco.atlas.collection import normalize_rows

RIDGE = 0.03  # of the largest variance, that is added to each (docs/log.md)
FEWEST_FOR_WHITENING = 50  # images: of fewer, variances are by chance, and features stay as they are
ROWS = 2**14  # of features at a time


class Whitening:
    """Features minus their mean, divided along each principal axis by the root of their variance, of length 1.

    To an encoder, all images of one kind are similar: the cosine similarity of different shirts may be 0.99. The
    directions in which the images of a collection differ most count less here, so that small differences show. RIDGE
    bounds it, as directions of little variance hold noise.

    Args:
        x: the features of the collection, of length 1.
    """

    def __init__(self, x: Float32[np.ndarray, "n D"]):
        self.changes = len(x) >= FEWEST_FOR_WHITENING
        if not self.changes:
            return
        mean: Any = x.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, len(x), ROWS):
            block = x[start : start + ROWS] - mean
            covariance += block.T @ block / len(x)
        variances, axes = np.linalg.eigh(covariance)
        largest = variances[-1] if variances[-1] > 1e-12 else 1.0  # all images are the same
        self._mean = mean.astype(np.float32)
        self._axes = (axes / np.sqrt(np.maximum(variances, 0) + RIDGE * largest)).astype(np.float32)

    def __call__(self, x: Float32[np.ndarray, "m D"]) -> Float32[np.ndarray, "m D"]:
        """Of features of any length."""
        found = np.empty(x.shape, dtype=np.float32)
        for start in range(0, len(x), ROWS):
            block = normalize_rows(x[start : start + ROWS])
            found[start : start + ROWS] = normalize_rows((block - self._mean) @ self._axes) if self.changes else block
        return found
