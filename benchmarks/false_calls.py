"""How often `moco compare` calls two encoders of equal quality different: it should be in at most 5 of 100 draws.

    python -m benchmarks.false_calls runs/demo labelled/ --draws 100

Both encoders are the given one, each with random noise of its own added to the features (as large as their standard
deviation). So they are equal in quality, and any difference on a draw of images is chance. Each draw has new noise, new
training images and new test images. Rows "without" leave out one part of the interval, to show how many more wrong
calls there would be.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from moco.comparison.compare import differences_of
from moco.comparison.measures import KNN, Measured, measure_knn
from moco.comparison.unlabelled import AGREE, TwoViews, differences_without_labels, extract_views, measure_views
from moco.comparison.verdict import Difference, judge_baseline
from moco.data.sources.labels import require_labels
from moco.data.sources.open import open_images
from moco.device import workers_for
from moco.evaluate.features import Features, extract, load_pretrained

Split = tuple[Features, Features]
TRAIN, TEST, VIEWS = (60, 200), 300, 256  # images in a draw


def noisy(x: Tensor, rng: torch.Generator) -> Tensor:
    return x + x.std(dim=0).mean() * torch.randn(x.shape, generator=rng)


def measured(split: Split, rng: torch.Generator) -> Measured:
    train, test = (replace(one, x=noisy(one.x, rng)) for one in split)
    return measure_knn(train, test, device=torch.device("cpu"))


def without_training_images(one: Measured) -> Measured:
    return replace(one, of_halves=np.zeros_like(one.of_halves))


def is_called(differences: dict[str, Difference], deciding: str, images: int) -> bool:
    alone = {deciding: differences[deciding]}
    return judge_baseline("", alone, deciding=deciding, images=images, level=0.95).answer != "cannot tell"


def with_labels(features: Features, train: int, draws: int) -> Iterator[tuple[bool, bool, bool]]:
    """For each draw whether there is a call: by the rule, without the training images, for the same encoder twice."""
    for seed in range(draws):
        rng = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(features.x), generator=rng)
        split = features[order[:train]], features[order[train : train + TEST]]
        pair = [measured(split, rng) for _ in range(2)]
        found: list[bool] = []
        fixed = [without_training_images(one) for one in pair]
        for ours, theirs in (pair, fixed, (pair[0], pair[0])):
            differences = differences_of(ours, {"other": [theirs]}, level=0.95)["other"]
            found.append(is_called(differences, KNN, TEST))
        yield found[0], found[1], found[2]


def without_labels(views: TwoViews, draws: int) -> Iterator[tuple[bool, bool, bool]]:
    """The same for the agreement of clusters; "without" has the standard error of the mean over halves instead."""
    for seed in range(draws):
        rng = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(views.a), generator=rng)[:VIEWS]
        pair = [
            measure_views(TwoViews(noisy(views.a[rows], rng), noisy(views.b[rows], rng), rows.numpy()))
            for _ in range(2)
        ]  # fmt: skip
        found = [differences_without_labels(pair[0], [other], level=0.95) for other in (pair[1], pair[0])]
        one = found[0][AGREE]
        reach = (one.high - one.low) / 2 / math.sqrt(len(pair[0].agree))
        narrow = replace(one, low=one.points - reach, high=one.points + reach)
        yield tuple(is_called({AGREE: each}, AGREE, VIEWS) for each in (one, narrow, found[1][AGREE]))  # pyright: ignore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("data")
    parser.add_argument("--draws", type=int, default=100)
    given = parser.parse_args()
    encoder, images, workers = (
        load_pretrained(given.weights),
        require_labels(open_images(given.data)),
        workers_for(None),
    )
    features = extract(encoder.encoder, images, encoder.data, device=encoder.device, workers=workers)
    views = extract_views(
        {"": encoder.encoder}, images, encoder.data, count=len(images) // 64 * 64, device=encoder.device,
        workers=workers,
    )[""]  # fmt: skip
    cases: dict[str, Callable[[], Iterator[tuple[bool, bool, bool]]]] = {
        f"{KNN}, {train} images to learn from, {TEST} to test on": lambda train=train: with_labels(
            features, train, given.draws
        )
        for train in TRAIN
    } | {f"{AGREE}, {VIEWS} images, no labels": lambda: without_labels(views, given.draws)}
    for name, draw in cases.items():
        by_rule, without, twice = np.array(list(draw())).sum(axis=0)
        print(f"{name}: {by_rule} calls of {given.draws}, without {without}, the same twice {twice}", flush=True)


if __name__ == "__main__":
    main()
