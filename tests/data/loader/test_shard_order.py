"""The order that reads shards mostly one after the other: each image once, a function of (seed, epoch), well mixed."""

import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco.data.loader import shard_order
from moco.data.loader.sampler import StepSampler
from moco.data.loader.shard_order import ShardOrder

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def epoch_of(counts: list[int], *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return ShardOrder(counts, seed).images_at(np.arange(sum(counts)), epoch)


def sampler_of(counts: list[int], batch_size: int, steps: range, **options) -> StepSampler:
    return StepSampler(sum(counts), batch_size, seed=7, steps=steps, shards=counts, **options)


@given(counts=COUNTS, window=st.integers(1, 9), most=st.integers(1, 4), epoch=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_an_epoch_has_each_image_once_whatever_the_shards(counts: list[int], window: int, most: int, epoch: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_order, "WINDOW", window)
        patch.setattr(shard_order, "OPEN", most)
        assert np.array_equal(np.sort(epoch_of(counts, epoch=epoch)), np.arange(sum(counts)))


@given(counts=COUNTS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_an_image_does_not_depend_on_the_other_places_that_are_asked_for(counts: list[int], data):
    order, whole = ShardOrder(counts, 3), epoch_of(counts, seed=3, epoch=1)
    places = np.array(data.draw(st.lists(st.integers(0, sum(counts) - 1), min_size=1, max_size=8)))
    order.images_at(np.array([0]), data.draw(st.integers(0, 2)))  # of another epoch before
    assert order.images_at(places, 1).tolist() == whole[places].tolist()
    assert pickle.loads(pickle.dumps(order)).images_at(places, 1).tolist() == whole[places].tolist()


def test_another_seed_and_another_epoch_have_another_order():
    orders = {tuple(epoch_of([30] * 10, seed=seed, epoch=epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 8])
def test_the_shares_of_the_ranks_are_the_mini_batch_of_one(ranks: int):
    counts, steps = [50, 7, 90, 33], range(14)
    alone = [(draw.epoch, draw.ids.tolist()) for draw in sampler_of(counts, 24, steps)]
    of_ranks = [sampler_of(counts, 24, steps, rank=rank, world_size=ranks) for rank in range(ranks)]
    joined = [
        (shares[0].epoch, [int(one) for share in shares for one in share.ids]) for shares in zip(*of_ranks, strict=True)
    ]
    assert joined == alone
    seen = Counter(one for _, ids in alone[:7] for one in ids)
    assert max(seen.values()) == 1
    assert len(seen) == 7 * 24


@given(start=st.integers(0, 30), length=st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_a_run_that_starts_at_a_step_continues_like_an_uninterrupted_one(start: int, length: int):
    counts = [50, 7, 90, 33]
    whole = [draw.ids.tolist() for draw in sampler_of(counts, 24, range(40))]
    assert [draw.ids.tolist() for draw in sampler_of(counts, 24, range(start, start + length))] == whole[
        start : start + length
    ]


def test_reads_are_mostly_sequential():
    counts = [1000] * 40
    steps = np.diff(epoch_of(counts))
    assert (steps == 1).mean() >= 1 - 1.1 / shard_order.WINDOW  # all but the starts of windows, and borders of shards
    uniform = StepSampler(40_000, 40_000, seed=0, steps=range(1)).draw(0).ids
    assert (np.diff(uniform) == 1).mean() < 0.001


def test_a_group_of_shards_is_read_to_its_end_before_the_next_one():
    shards = epoch_of([1000] * 96) // 1000
    groups = [set(part.tolist()) for part in np.split(shards, 3)]
    assert [len(group) for group in groups] == [32, 32, 32]
    assert set().union(*groups) == set(range(96))


def test_no_group_is_much_smaller_than_the_others():
    shards = epoch_of([1000] * 33) // 1000
    assert [len(set(part.tolist())) for part in np.split(shards, [16_000])] == [16, 17]


def test_a_mini_batch_is_mixed_from_all_shards_of_a_group():
    """16 windows out of 32 shards: as many different shards as random draws would have, 32 (1 - (31/32)^16) = 12.7."""
    shards = epoch_of([1000] * 32) // 1000
    different = [len(set(batch.tolist())) for batch in np.split(shards, 125)]
    assert abs(np.mean(different) - 12.7) < 0.7  # windows at a border have two


def test_windows_begin_elsewhere_in_each_epoch():
    """So the same images do not always meet: image 500 begins a window in about one of 16 epochs."""
    begins = 0
    for epoch in range(160):
        ids = epoch_of([1000], epoch=epoch)
        begins += int(ids[np.flatnonzero(ids == 500)[0] - 1] != 499)
    assert 1 <= begins <= 30  # 10 are expected; 4 standard deviations are 12


def test_a_billion_images_in_shards_take_little_memory():
    counts = np.full(100_000, 10_000)
    tracemalloc.start()
    sampler = StepSampler(10**9, 256, seed=0, steps=range(0), shards=counts)
    drawn = [sampler.draw(step).ids for step in (0, 10**6, 10**9 // 256 - 1)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(len(set(ids.tolist())) == 256 for ids in drawn)
    assert peak < 100_000 * 8 * 30  # some columns of numbers, while the shards are permuted


def test_other_counts_than_images_are_refused():
    with pytest.raises(ValueError, match="got 10 images"):
        StepSampler(11, 2, seed=0, steps=range(1), shards=[4, 6])
