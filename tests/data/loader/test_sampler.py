"""The mini-batches of a run as a function of (seed, step)."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco.data.loader.sampler import StepSampler


def batches(n: int, batch_size: int, *, steps: range, seed: int = 0, **options) -> list[tuple[int, list[int]]]:
    sampler = StepSampler(n, batch_size, seed=seed, steps=steps, **options)
    return [(draw.epoch, draw.ids.tolist()) for draw in sampler]


@given(n=st.integers(1, 300), data=st.data())
@settings(max_examples=40, deadline=None)
def test_an_epoch_shows_each_image_at_most_once_and_drops_only_the_last_smaller_batch(n: int, data):
    size = data.draw(st.integers(1, n))
    epoch = batches(n, size, steps=range(n // size))
    ids = [one for _, batch in epoch for one in batch]
    assert {number for number, _ in epoch} == {0}
    assert all(len(batch) == size for _, batch in epoch)
    assert len(set(ids)) == len(ids) == n - n % size
    assert set(ids) <= set(range(n))


def test_epochs_follow_each_other_in_orders_of_their_own():
    drawn = batches(10, 3, steps=range(9))
    assert [epoch for epoch, _ in drawn] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({str([batch for number, batch in drawn if number == epoch]) for epoch in range(3)}) == 3


def test_other_epochs_drop_other_images():
    drawn = batches(10, 3, steps=range(30))
    seen = [{one for number, batch in drawn if number == epoch for one in batch} for epoch in range(10)]
    assert len({str(set(range(10)) - one) for one in seen}) > 3


@given(start=st.integers(0, 40), length=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_a_run_that_starts_at_a_step_continues_like_an_uninterrupted_one(start: int, length: int):
    assert batches(50, 7, steps=range(start, start + length)) == batches(50, 7, steps=range(60))[start : start + length]


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_the_shares_of_the_ranks_are_the_mini_batch_of_one(ranks: int):
    alone = batches(50, 12, steps=range(8))
    shares = [batches(50, 12, steps=range(8), rank=rank, world_size=ranks) for rank in range(ranks)]
    joined = [(each[0][0], [one for _, share in each for one in share]) for each in zip(*shares, strict=True)]
    assert joined == alone


def test_the_order_depends_on_the_seed():
    assert batches(50, 10, steps=range(5), seed=0) != batches(50, 10, steps=range(5), seed=1)


def test_an_order_is_not_the_order_of_the_images():
    ids = [one for _, batch in batches(1000, 100, steps=range(10)) for one in batch]
    assert abs(np.corrcoef(ids, np.arange(1000))[0, 1]) < 0.15


def test_a_single_step_can_be_requested():
    sampler = StepSampler(50, 7, seed=3, steps=range(0))
    assert sampler.draw(11).ids.tolist() == batches(50, 7, steps=range(11, 12), seed=3)[0][1]


def test_the_number_of_mini_batches_is_that_of_the_steps():
    assert len(StepSampler(50, 7, seed=0, steps=range(5, 25))) == 20


@pytest.mark.parametrize("n", [10**9, 2**40])
def test_a_billion_images_take_the_memory_of_a_mini_batch(n: int):
    tracemalloc.start()
    drawn = batches(n, 256, steps=range(n // 256 - 2, n // 256 + 2))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [epoch for epoch, _ in drawn] == [0, 0, 1, 1]
    assert max(max(batch) for _, batch in drawn) > 0.9 * n
    assert peak < 2**20


@pytest.mark.parametrize(("n", "size", "ranks"), [(10, 11, 1), (10, 5, 2), (10, 0, 1), (0, 1, 1)])
def test_sizes_that_allow_no_mini_batch_are_an_error(n: int, size: int, ranks: int):
    with pytest.raises(ValueError, match=r"set (another|a smaller) size"):
        StepSampler(n, size, seed=0, steps=range(1), world_size=ranks)
