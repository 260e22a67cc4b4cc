"""The rule of the verdict, on numbers and as statistics on synthetic features."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from moco.comparison.compare import differences_of
from moco.comparison.measures import KNN, Measured, measure_knn
from moco.comparison.verdict import ComparisonVerdict, Difference, judge_all, judge_baseline, level_for
from moco.evaluate.features import Features

Split = tuple[Features, Features]  # training and test images
BETTER = Difference(points=6.0, low=4.0, high=8.0, different=40)
WORSE = Difference(points=-6.0, low=-8.0, high=-4.0, different=40)
CLOSE = Difference(points=1.0, low=-1.0, high=3.0, different=40)


def verdict(one: Difference, images: int = 200, **others: Difference) -> str:
    found = judge_baseline("other", {KNN: one} | others, deciding=KNN, images=images, level=0.95)
    return found.answer


@pytest.mark.parametrize(("one", "answer"), [(BETTER, "yes"), (WORSE, "no"), (CLOSE, "cannot tell")])
def test_the_side_of_the_interval_gives_the_answer(one: Difference, answer: str):
    assert verdict(one) == answer


def test_it_cannot_tell_with_few_images_or_few_differing_ones_or_an_opposite_measure():
    assert verdict(BETTER, images=49) == "cannot tell"
    assert verdict(dataclasses.replace(BETTER, different=9)) == "cannot tell"
    assert verdict(BETTER, linear=WORSE) == "cannot tell"
    assert verdict(BETTER, linear=CLOSE) == "yes"


def test_the_sentence_has_the_numbers():
    found = judge_baseline("timm/x", {KNN: WORSE}, deciding=KNN, images=200, level=0.95)
    assert found.sentence == f"No: timm/x is better by 6.0 points of {KNN} (95 % interval 4.0 to 8.0)."


@pytest.mark.parametrize(
    ("answers", "overall"),
    [(["yes", "yes"], "yes"), (["yes", "cannot tell"], "cannot tell"), (["yes", "no", "cannot tell"], "no")],
)
def test_one_better_baseline_is_a_no_and_yes_needs_all(answers: list, overall: str):
    assert judge_all({f"{i}": ComparisonVerdict(one, one) for i, one in enumerate(answers)}).answer == overall


def test_the_levels_of_all_baselines_together_miss_5_percent():
    assert level_for(4) == pytest.approx(1 - 0.05 / 4)


def draw_features(seed: int, *, train: int = 200, test: int = 200, encoders: int = 1) -> list[Split]:
    """Encoders of equal quality on the same images: a signal of the class (4 of them), and noise of their own."""
    rng = torch.Generator().manual_seed(seed)
    n = train + test
    labels = (torch.arange(n) % 4)[torch.randperm(n, generator=rng)]
    signal = 0.5 * torch.randn(4, 16, generator=rng)[labels]
    found: list[Split] = []
    for _ in range(encoders):
        x = signal + torch.randn(n, 16, generator=rng)
        everything = Features(x, labels, list("abcd"), [f"{i}" for i in range(n)], torch.arange(n))
        found.append((everything[torch.arange(train)], everything[torch.arange(train, n)]))
    return found


def changed(split: Split, change: Callable[[torch.Tensor], torch.Tensor]) -> Split:
    train, test = (dataclasses.replace(one, x=change(one.x)) for one in split)
    return train, test


def measured(split: Split) -> Measured:
    return measure_knn(*split, device=torch.device("cpu"))


def answer(ours: Measured, theirs: Measured) -> str:
    differences = differences_of(ours, {"other": [theirs]}, level=0.95)["other"]
    images = len(ours.of_halves[0])
    return judge_baseline("other", differences, deciding=KNN, images=images, level=0.95).answer


def test_the_same_encoder_twice_or_rotated_gives_no_call():
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q
    for seed in range(20):
        split = draw_features(seed)[0]
        assert answer(measured(split), measured(changed(split, lambda x: x @ rotation))) == "cannot tell"


def without_training_noise(one: Measured) -> Measured:
    return dataclasses.replace(one, of_halves=np.zeros_like(one.of_halves))


def test_encoders_of_equal_quality_are_called_different_in_at_most_5_of_100_draws():
    """With few training images, most of the difference is their choice: without resampling them, calls are wrong."""
    called, called_without = 0, 0
    for seed in range(100):
        pair = [measured(one) for one in draw_features(seed, train=60, test=300, encoders=2)]
        called += answer(*pair) != "cannot tell"
        called_without += answer(*map(without_training_noise, pair)) != "cannot tell"
    assert called <= 5
    assert called_without > 10


def test_a_worse_encoder_is_found_because_images_are_paired():
    """A part of its features is noise. With the images of one of both in another order it is found half as often."""
    paired, unpaired = 0, 0
    for seed in range(20):
        ours = draw_features(seed, train=200, test=300)[0]
        rng = torch.Generator().manual_seed(1000 + seed)
        noise = {n: 0.5 * torch.randn(n, 16, generator=rng) for n in (200, 300)}
        theirs = changed(ours, lambda x, noise=noise: x + noise[len(x)])
        one, other = measured(ours), measured(theirs)
        order = torch.randperm(300, generator=rng).numpy()
        mixed = Measured({KNN: other.correct[KNN][:, order]}, other.of_halves[:, order])
        assert answer(one, other) != "no"
        paired += answer(one, other) == "yes"
        unpaired += answer(one, mixed) == "yes"
    assert paired >= 8
    assert unpaired <= 5
