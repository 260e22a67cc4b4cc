"""Images of rare classes come more than once in an epoch (LVIS, arXiv:1908.03195, Sec. 5.2: repeat factor sampling)."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from moco import rng
from moco.data.loader.sampler import Draw, StepSampler

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
    return _ordered(_counts(factors, seed, epoch), seed, epoch)[0]


def _counts(factors: Float64[np.ndarray, "N"], seed: int, epoch: int) -> Int64[np.ndarray, "N"]:
    """How often each image comes in an epoch."""
    whole = np.floor(factors)
    up = rng.uniform(rng.fold(seed, FRACTIONS), epoch, np.arange(len(factors)), 0) < factors - whole
    return (whole + up).astype(np.int64)


def _ordered(
    counts: Int64[np.ndarray, "N"], seed: int, epoch: int
) -> tuple[Int64[np.ndarray, "M"], Int64[np.ndarray, "M"]]:
    """The images of an epoch in random order, and how often each came before."""
    images = np.repeat(np.arange(len(counts)), counts)
    turns = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = rng.permuted(np.arange(len(images)), len(images), rng.fold(seed, ORDER, epoch))
    return images[order], turns[order]


class RepeatSampler:
    """The mini-batches of `plain`, with repeat factors: a function of (factors, seed, step) alone.

    Epochs have different lengths; the last, smaller mini-batch of each is dropped, as in StepSampler. An id is that of
    the image, plus the number of images for each time that it came before in the epoch.

    Args:
        factors: at least 1 for each image, see `repeat_factors`.
    """

    def __init__(self, factors: Float64[np.ndarray, "N"], plain: StepSampler) -> None:
        self.factors, self.plain = factors, plain

    def __len__(self) -> int:
        return len(self.plain)

    def __iter__(self) -> Iterator[Draw]:
        """This rank's share of each mini-batch."""
        steps, first, epoch = self.plain.steps, 0, 0  # first: the step at which the epoch begins
        while first < steps.stop:
            counts = _counts(self.factors, self.plain.seed, epoch)
            count = int(counts.sum()) // self.plain.batch_size
            inside = range(max(steps.start, first), min(steps.stop, first + count))
            if inside:
                yield from self._of_epoch(epoch, counts, range(inside.start - first, inside.stop - first))
            first, epoch = first + count, epoch + 1

    def _of_epoch(self, epoch: int, counts: Int64[np.ndarray, "N"], batches: range) -> Iterator[Draw]:
        images, turns = _ordered(counts, self.plain.seed, epoch)
        for batch in batches:
            places = batch * self.plain.batch_size + np.arange(self.plain.share.start, self.plain.share.stop)
            yield Draw(epoch, images[places] + len(counts) * turns[places])
