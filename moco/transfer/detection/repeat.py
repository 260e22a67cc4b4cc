"""Repeat factor sampling: images of rare classes are repeated in an epoch (LVIS, arXiv:1908.03195, Sec. 5.2)."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from moco import rng
from moco.data.loader.sampler import Draw, StepSampler

REPEAT_THRESHOLD = 0.001  # t: classes in a smaller share of the images are repeated (LVIS; the paper's appendix A.4)
FRACTIONS, ORDER = 1, 2  # two independent sequences of random numbers


def repeat_factors(
    labels: Sequence[Int64[np.ndarray, "_"]], threshold: float = REPEAT_THRESHOLD
) -> Float64[np.ndarray, "N"]:
    """How often each image occurs in an epoch on average: the maximum of max(1, sqrt(t / f(c))) over its classes c.

    Args:
        labels: the classes of the objects in each image. f(c) is the share of images with an object of class c.
    """
    present = [np.unique(one) for one in labels]
    count = 1 + max((int(one[-1]) for one in present if len(one)), default=0)
    images = np.bincount(np.concatenate([np.zeros(0, dtype=np.int64), *present]), minlength=count)
    share = np.maximum(images, 1) / max(len(labels), 1)
    of_class = np.maximum(1, np.sqrt(threshold / share))
    return np.array([of_class[one].max(initial=1) for one in present], dtype=np.float64)


def repeat_images(factors: Float64[np.ndarray, "N"], *, seed: int, epoch: int) -> Int64[np.ndarray, "M"]:
    """The images of one epoch in random order. Each occurs as often as its factor, rounded up or down at random.

    The result depends on the arguments alone, so a resumed run needs no sampler state.
    """
    return _ordered(_counts(factors, seed, epoch), seed, epoch)[0]


def _counts(factors: Float64[np.ndarray, "N"], seed: int, epoch: int) -> Int64[np.ndarray, "N"]:
    """How often each image occurs in the epoch."""
    whole = np.floor(factors)
    up = rng.uniform(rng.fold(seed, FRACTIONS), epoch, np.arange(len(factors)), 0) < factors - whole
    return (whole + up).astype(np.int64)


def _ordered(
    counts: Int64[np.ndarray, "N"], seed: int, epoch: int
) -> tuple[Int64[np.ndarray, "M"], Int64[np.ndarray, "M"]]:
    """The images of an epoch in random order, and for each the number of its repetition, from 0."""
    images = np.repeat(np.arange(len(counts)), counts)
    turns = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = rng.permute(np.arange(len(images)), len(images), rng.fold(seed, ORDER, epoch))
    return images[order], turns[order]


class RepeatSampler:
    """The mini-batches of `plain`, with repeat factors: a function of (factors, seed, step) alone.

    Epochs have different lengths; the last, smaller mini-batch of each is dropped, as in StepSampler. An id is the
    number of the image, plus the number of all images times the number of its repetition in the epoch.

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
