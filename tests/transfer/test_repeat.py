"""Repeat factor sampling, against its equation."""

import numpy as np
import pytest

from moco.transfer.detection.repeat import repeat_factors, repeat_images


def test_factors_are_those_of_the_equation():
    labels = [np.array(one, dtype=np.int64) for one in ([0], [0, 0], [0, 1], [0, 2, 1], [], [0], [0], [0])]
    found = repeat_factors(labels, threshold=0.5)
    once, twice = (
        (0.5 / (1 / 8)) ** 0.5,
        (0.5 / (2 / 8)) ** 0.5,
    )  # class 2 is in 1 of 8 images, class 1 in 2, class 0 in 7
    assert found.tolist() == pytest.approx([1, 1, twice, once, 1, 1, 1, 1])


def test_with_lvis_threshold_only_classes_in_less_than_a_thousandth_of_the_images_are_repeated():
    labels = [np.array([0, 1 if i < 2 else 0], dtype=np.int64) for i in range(4000)]
    found = repeat_factors(labels)
    assert found[:2].tolist() == pytest.approx([2**0.5] * 2)
    assert set(found[2:]) == {1.0}


def test_an_image_is_repeated_by_its_factor_on_average_and_rounded_by_less_than_one():
    factors = np.array([1.0, 2.5, 1.25, 4.0])
    counts = np.array([np.bincount(repeat_images(factors, seed=3, epoch=e), minlength=4) for e in range(2000)])
    assert (np.abs(counts - factors) < 1).all()
    assert counts.mean(axis=0) == pytest.approx(factors, abs=0.05)  # 4 standard deviations of the widest


def test_an_epoch_is_a_function_of_seed_and_epoch_and_its_order_is_random():
    factors = np.linspace(1, 3, 50)
    first = repeat_images(factors, seed=0, epoch=0)
    assert np.array_equal(first, repeat_images(factors, seed=0, epoch=0))
    for other in (repeat_images(factors, seed=0, epoch=1), repeat_images(factors, seed=1, epoch=0)):
        assert not np.array_equal(first, other)
    assert not np.array_equal(first, np.sort(first))


def test_images_without_objects_come_once():
    nothing = [np.zeros(0, dtype=np.int64)] * 3
    assert repeat_factors(nothing).tolist() == [1, 1, 1]
    assert sorted(repeat_images(repeat_factors(nothing), seed=0, epoch=0)) == [0, 1, 2]
