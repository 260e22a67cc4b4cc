"""A comparison of bounded cost: on no more images than the encoders take some seconds for. 20-NN alone decides."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moco.comparison.compare import compare_encoders
from moco.comparison.measures import measure_knn
from moco.comparison.result import Comparison
from moco.comparison.unlabelled import IMAGES, compare_without_labels
from moco.comparison.verdict import FEWEST_IMAGES
from moco.data.loader.bad_images import Quarantine
from moco.data.sources.images import Images, Subset
from moco.data.sources.split import Split
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels, random_encoder
from moco.evaluate.features import Pretrained, extract
from moco.recipe import RecipeError
from moco.rng import fold, permute
from moco.text import duration

TIMED = 24  # images that the time of each encoder is measured on
SHARE = 0.6  # of the seconds for the features; the rest is for loading, reading and measures
FEWEST, MOST = 4 * FEWEST_IMAGES, 6000  # images, at least and at most
ONE_IN = 3  # of the images are to test on


class TooFewError(ValueError):
    """There are too few labelled images for a verdict, or too little time. The message says which."""


@dataclass(frozen=True)
class Extent:
    """How much fits into the time."""

    images: int
    kept: Sequence[str]  # baselines
    left_out: Sequence[str]


def compare_shortly(
    pretrained: Pretrained, split: Split, others: Mapping[str, Pretrained], *, seconds: float, workers: int
) -> Comparison:
    """The encoder beside raw pixels, one random encoder and `others`, on as many images as `seconds` allow.

    Args:
        others: by name, the one that is missed least last: it is left out first if the time is short.

    Raises:
        TooFewError: see there. DataError: no labels, or unreadable images.
    """
    test = min(len(split.test), (len(split.train) + len(split.test)) // ONE_IN)
    if test < FEWEST_IMAGES:
        raise TooFewError(f"there are {len(split.test):,} labelled images to test on, and {FEWEST_IMAGES} are needed")
    names = ["pixels"] if _random_encoder(pretrained) is None else ["random", "pixels"]
    extent = _extent_for(
        pretrained, split.train, others, seconds=seconds, most=min(MOST, test * ONE_IN), workers=workers
    )  # fmt: skip
    some = choose_images(split, extent.images)
    found = compare_encoders(
        pretrained, some.train, {name: others[name] for name in extent.kept}, [*names, *extent.kept], test=some.test,
        random_encoders=1, measured_by=measure_knn, workers=workers,
    )  # fmt: skip
    notes = [f"a short comparison, in at most about {duration(seconds)}: 20-NN only, one random encoder"]
    return replace(
        found, split=f"{found.split}; drawn from: {split.how}", notes=[*notes, *_left_out(extent), *found.notes]
    )


def compare_views_shortly(
    pretrained: Pretrained, images: Images, others: Mapping[str, Pretrained], *, seconds: float, workers: int
) -> Comparison:
    """The same without labels, on two views of as many images as `seconds` allow."""
    if len(images) < FEWEST_IMAGES:
        raise TooFewError(f"there are {len(images):,} images, and {FEWEST_IMAGES} are needed")
    of_views = seconds / 2
    extent = _extent_for(
        pretrained, images, others, seconds=of_views, most=min(IMAGES, len(images)), workers=workers
    )  # fmt: skip
    fresh = _random_encoder(pretrained)
    fixed: dict[str, list[Encoder | Pixels]] = {} if fresh is None else {"random": [fresh]}
    fixed["pixels"] = [Pixels(pretrained.data).to(pretrained.device)]
    return compare_without_labels(
        pretrained, images, {name: others[name] for name in extent.kept}, fixed, most=extent.images, workers=workers,
        notes=[f"a short comparison, in at most about {duration(seconds)}: one random encoder", *_left_out(extent)],
    )  # fmt: skip


def _extent_for(
    pretrained: Pretrained, images: Images, others: Mapping[str, Pretrained], *, seconds: float, most: int, workers: int
) -> Extent:
    """How many images can be read and encoded in a share of `seconds`, by pretrained, its baselines and `others`."""
    cost = {name: measure_seconds(one, images, workers=workers) for name, one in others.items()}
    own = 2 * measure_seconds(pretrained, images, workers=workers)  # a random encoder takes as long
    return fit_into(SHARE * seconds, own, cost, most=most)


def _left_out(extent: Extent) -> list[str]:
    return [f"left out, as it takes longer: {', '.join(extent.left_out)}"] if extent.left_out else []


def _random_encoder(pretrained: Pretrained) -> Encoder | None:
    try:
        return random_encoder(pretrained.encoder)
    except RecipeError:  # a module of the user's own that cannot be initialized again
        return None


def measure_seconds(pretrained: Pretrained, images: Images, *, workers: int) -> float:
    """[s] that an image takes, read and encoded."""
    for count in (2, min(TIMED, len(images))):  # the first call loads kernels
        some = Subset(images, np.linspace(0, len(images) - 1, count).astype(int))
        start = time.perf_counter()
        extract(
            pretrained.encoder, some, pretrained.data, device=pretrained.device, workers=workers,
            quarantine=Quarantine(None, count, count),
        )  # fmt: skip
        spent = time.perf_counter() - start
    return spent / count


def fit_into(seconds: float, own: float, others: Mapping[str, float], *, most: int) -> Extent:
    """The number of images that all encoders can take in `seconds`, without the last of `others` if they are too few.

    Args:
        own: [s] an image, of the encoder itself and of the baselines at its size. others: of each other baseline.
        most: images.

    Raises:
        TooFewError: fewer than FEWEST images even without the others.
    """
    kept = list(others)
    while True:
        images = min(most, int(seconds / (own + sum(others[name] for name in kept))))
        if images >= min(FEWEST, most) or not kept:
            break
        kept.pop()
    if images < min(FEWEST, most):
        raise TooFewError(f"{duration(seconds)} are enough for {images:,} images, and {min(FEWEST, most):,} are needed")
    return Extent(images, kept, [name for name in others if name not in kept])


def choose_images(split: Split, count: int) -> Split:
    """`count` images of the split, one in three of them to test on; the same ones for the same count."""
    test = min(len(split.test), count // ONE_IN)
    train = min(len(split.train), count - test)
    return split._replace(train=_draw(split.train, train), test=_draw(split.test, test))


def _draw(images: Images, count: int) -> Images:
    if count == len(images):
        return images
    return Subset(images, np.sort(permute(np.arange(count), len(images), fold(0))))
