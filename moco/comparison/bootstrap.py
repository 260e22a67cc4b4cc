"""The paired bootstrap: test images, draws and halves of the training images are resampled alike for all encoders.

Training images are resampled by random halves without replacement: a copy of a neighbour would vote twice. For a mean,
the variance over halves, var / (n / 2) * (1 - 1 / 2), is that over new sets of n images, var / n.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

RESAMPLES = 2000
CELLS = 2**22  # of the table of resamples that is in memory at a time
HALVES = 100  # of the training images


@dataclass(frozen=True)
class Resamples:
    """How often each resample has each test image and each draw, as shares that sum to 1; and its half."""

    images: Float32[np.ndarray, "R n"]
    draws: Float32[np.ndarray, "R d"]
    halves: Int64[np.ndarray, "R"]


def draw_resamples(images: int, draws: int = 1, *, resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
    """Resamples with replacement of test images, and independently of draws and of halves."""
    rng = np.random.default_rng(seed)
    return Resamples(
        _shares(rng, images, resamples), _shares(rng, draws, resamples), rng.integers(HALVES, size=resamples)
    )  # fmt: skip


def _shares(rng: np.random.Generator, n: int, resamples: int) -> Float32[np.ndarray, "R n"]:
    shares = np.empty((resamples, n), dtype=np.float32)
    for start in range(0, resamples, rows := max(1, CELLS // n)):
        part = shares[start : start + rows]
        drawn = rng.integers(n, size=(len(part), n)) + n * np.arange(len(part))[:, None]
        part[:] = np.bincount(drawn.ravel(), minlength=part.size).reshape(part.shape) / n
    return shares


def draw_halves(n: int, *, count: int = HALVES, seed: int = 0) -> Bool[np.ndarray, "H n"]:
    """Random halves of n images, the same for all encoders."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n) < n // 2 for _ in range(count)])


def resample_means(values: Float[np.ndarray, "d n"], among: Resamples) -> Float[np.ndarray, "R"]:
    """The mean of `values` (draws x images) in each resample."""
    return (among.images @ values.T.astype(np.float32) * among.draws).sum(axis=1)


def noise_of_halves(values: Float[np.ndarray, "H n"], among: Resamples) -> Float[np.ndarray, "R"]:
    """What the choice of training images adds to the mean in each resample. `values`: of each half and test image."""
    means = values.mean(axis=1)
    return (means - means.mean())[among.halves]


def interval(means: Float[np.ndarray, "R"], *, level: float) -> tuple[float, float]:
    """The percentile interval that covers `level` of the resamples."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
