"""Images of rare classes come more than once in an epoch (LVIS, arXiv:1908.03195, Sec. 5.2: repeat factor sampling)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from moco import rng

THRESHOLD = 0.001  # t: classes in a larger share of the images are not rare (LVIS; the paper's appendix A.4)
FRACTIONS, ORDER = 1, 2  # places of the two uses of random numbers


def repeat_factors(labels: Sequence[Int64[np.ndarray, "_"]], threshold: float = THRESHOLD) -> Float64[np.ndarray, "N"]:
    """How often each image comes in an epoch, on average: of its classes c the largest max(1, sqrt(t / f(c))).

    Args:
        labels: of the objects of each image. f(c) is the share of images with an object of class c.
    """
    present = [np.unique(one) for one in labels]
    count = 1 + max((int(one[-1]) for one in present if len(one)), default=0)
    images = np.bincount(np.concatenate([np.zeros(0, dtype=np.int64), *present]), minlength=count)
    share = np.maximum(images, 1) / max(len(labels), 1)
    of_class = np.maximum(1, np.sqrt(threshold / share))
    return np.array([of_class[one].max(initial=1) for one in present], dtype=np.float64)


def repeated(factors: Float64[np.ndarray, "N"], *, seed: int, epoch: int) -> Int64[np.ndarray, "M"]:
    """The images of one epoch, in random order: each as often as its factor says, rounded up or down at random.

    A function of its arguments: a resumed run needs no state of a sampler.
    """
    images = np.arange(len(factors))
    whole = np.floor(factors)
    up = rng.uniform(rng.fold(seed, FRACTIONS), epoch, images, 0) < factors - whole
    chosen = np.repeat(images, (whole + up).astype(np.int64))
    return chosen[rng.permuted(np.arange(len(chosen)), len(chosen), rng.fold(seed, ORDER, epoch))]
