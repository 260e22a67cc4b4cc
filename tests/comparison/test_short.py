"""How much a short comparison does."""

import numpy as np
import pytest

from moco.comparison.short import FEWEST, Extent, TooFewError, choose_images, fit_into
from moco.data.sources.split import Split


def test_the_images_take_the_time_that_is_given():
    assert fit_into(10, 0.01, {"a": 0.01}, most=6000) == Extent(500, ["a"], [])  # 10 s / (0.01 + 0.01) s
    assert fit_into(1000, 0.01, {"a": 0.01}, most=6000).images == 6000


def test_the_last_baseline_is_left_out_if_too_few_images_fit():
    found = fit_into(10, 0.01, {"a": 0.01, "b": 0.1}, most=6000)  # 83 images with b, 500 without
    assert found == Extent(500, ["a"], ["b"])


def test_few_images_in_all_keep_every_baseline():
    assert fit_into(10, 0.01, {"a": 0.05}, most=150).kept == ["a"]  # 166 would fit


def test_too_little_time_is_refused_with_numbers():
    with pytest.raises(TooFewError, match=f"enough for 100 images, and {FEWEST} are needed"):
        fit_into(10, 0.1, {"a": 0.1}, most=6000)


class Named:
    """Images of which only names and labels are known."""

    classes = ("a", "b")

    def __init__(self, count: int):
        self.labels = np.arange(count) % 2
        self.sizes = self.mtimes = np.zeros(count, dtype=np.int64)
        self.names = [f"{i}" for i in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        raise AssertionError("the choice reads no image")


@pytest.mark.parametrize(
    ("train", "test", "count"), [(900, 900, 300), (900, 60, 300), (250, 900, 300), (200, 100, 300)]
)
def test_a_third_of_the_images_is_for_testing_and_always_the_same(train: int, test: int, count: int):
    split = Split(Named(train), Named(test), "")
    some, again = choose_images(split, count), choose_images(split, count)
    assert len(some.test) == min(test, count // 3)
    assert len(some.train) == min(train, count - len(some.test))
    assert list(some.train.names) == list(again.train.names)
    assert len(set(some.train.names)) == len(some.train)
