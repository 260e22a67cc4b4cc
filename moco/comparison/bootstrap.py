"""The paired bootstrap: test images, and draws of labelled images, are resampled alike for all encoders."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

RESAMPLES = 2000
CELLS = 2**24  # of the table of resamples that is in memory at a time


@dataclass(frozen=True)
class Resamples:
    """How often each resample has each test image and each draw, as shares that sum to 1."""

    images: Float32[np.ndarray, "R n"]
    draws: Float32[np.ndarray, "R d"]


def draw_resamples(images: int, draws: int = 1, *, resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
    """Resamples with replacement of test images, and independently of draws."""
    rng = np.random.default_rng(seed)
    return Resamples(_shares(rng, images, resamples), _shares(rng, draws, resamples))


def _shares(rng: np.random.Generator, n: int, resamples: int) -> Float32[np.ndarray, "R n"]:
    shares = np.empty((resamples, n), dtype=np.float32)
    for start in range(0, resamples, rows := max(1, CELLS // n)):
        part = shares[start : start + rows]
        part[:] = rng.multinomial(n, np.full(n, 1 / n), size=len(part)) / n
    return shares


def resampled_means(values: Float[np.ndarray, "d n"], among: Resamples) -> Float[np.ndarray, "R"]:
    """The mean of `values` (draws x images) in each resample."""
    return (among.images @ values.T.astype(np.float32) * among.draws).sum(axis=1)


def interval(means: Float[np.ndarray, "R"], *, level: float) -> tuple[float, float]:
    """The percentile interval that covers `level` of the resamples."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
