"""The rule of the verdict, on numbers and as statistics on synthetic features."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from moco.comparison.compare import differences_of
from moco.comparison.measures import KNN, K
from moco.comparison.verdict import Difference, Verdict, judge_all, judge_baseline, level_for
from moco.evaluate.features import Features
from moco.evaluate.knn import knn

Change = Callable[[torch.Tensor], torch.Tensor]  # of features
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
    assert judge_all({f"{i}": Verdict(one, one) for i, one in enumerate(answers)}).answer == overall


def test_the_levels_of_all_baselines_together_miss_5_percent():
    assert level_for(4) == pytest.approx(1 - 0.05 / 4)


def draw_features(seed: int) -> tuple[Features, Features]:
    """Training and test features of 4 classes: 32 dimensions of equal signal and noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(400) % 4
    x = 0.35 * torch.randn(4, 32, generator=rng)[labels] + torch.randn(400, 32, generator=rng)
    everything = Features(x, labels, list("abcd"), [f"{i}" for i in range(400)], torch.arange(400))
    return everything[torch.arange(200)], everything[torch.arange(200, 400)]


def correct(train: Features, test: Features, change: Change) -> dict[str, np.ndarray]:
    train, test = (dataclasses.replace(one, x=change(one.x)) for one in (train, test))
    return {KNN: (knn(train, test, k=K).predictions == test.labels).double().numpy()[None]}


def false_calls(change: Callable[[int], tuple[Change, Change]]) -> int:
    """Calls of yes or no among 100 seeded draws, of features against the `change`d ones."""
    calls = 0
    for seed in range(100):
        ours, theirs = change(seed)
        pair = [correct(*draw_features(seed), one) for one in (ours, theirs)]
        differences = differences_of(pair[0], {"other": [pair[1]]}, level=0.95)["other"]
        calls += judge_baseline("other", differences, deciding=KNN, images=200, level=0.95).answer != "cannot tell"
    return calls


def test_the_same_encoder_twice_or_rotated_gives_no_call():
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0))).Q
    assert false_calls(lambda seed: (lambda x: x, lambda x: x @ rotation)) == 0


def draw_equal_pair(seed: int) -> list[tuple[Features, Features]]:
    """Two encoders of equal quality: the same signal of the class, independent noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(400) % 4
    signal = 0.5 * torch.randn(4, 16, generator=rng)[labels]
    pair: list[tuple[Features, Features]] = []
    for _ in range(2):
        x = signal + torch.randn(400, 16, generator=rng)
        both = Features(x, labels, list("abcd"), [f"{i}" for i in range(400)], torch.arange(400))
        pair.append((both[torch.arange(200)], both[torch.arange(200, 400)]))
    return pair


def test_two_encoders_of_equal_quality_are_called_different_in_at_most_5_of_100_draws():
    calls = 0
    for seed in range(100):
        ours, theirs = (correct(train, test, lambda x: x) for train, test in draw_equal_pair(seed))
        differences = differences_of(ours, {"other": [theirs]}, level=0.95)["other"]
        calls += judge_baseline("other", differences, deciding=KNN, images=200, level=0.95).answer != "cannot tell"
    assert calls <= 5
