"""Mini-batches with repeat factors: a function of (factors, seed, step) alone."""

import numpy as np

from moco.data.loader.sampler import StepSampler
from moco.transfer.detection.repeat import RepeatSampler, repeat_images

FACTORS = np.array([1.0, 2.5, 1.25, 3.0, 1.0, 1.5, 1.0])


def batches(steps: range, **share: int) -> list[tuple[int, list[int], list[int]]]:
    """Epoch, images, and how often each came before in the epoch."""
    sampler = RepeatSampler(FACTORS, StepSampler(len(FACTORS), 4, seed=5, steps=steps, **share))
    assert len(sampler) == len(steps)
    return [(one.epoch, (one.ids % len(FACTORS)).tolist(), (one.ids // len(FACTORS)).tolist()) for one in sampler]


def test_an_epoch_has_the_repeated_images_without_its_last_smaller_mini_batch():
    found = batches(range(60))
    for epoch in range(10):
        ids = [number for at, batch, _ in found if at == epoch for number in batch]
        expected = repeat_images(FACTORS, seed=5, epoch=epoch)
        assert ids == expected[: len(expected) // 4 * 4].tolist()
    assert len({sum(at == epoch for at, _, _ in found) for epoch in range(10)}) > 1  # their lengths differ


def test_any_step_can_be_the_first():
    whole = batches(range(40))
    assert len(whole) == 40
    for start in (1, 3, 17, 39):
        assert batches(range(start, 40)) == whole[start:]


def test_the_shares_of_two_ranks_are_the_mini_batch_of_one():
    whole = batches(range(12))
    parts = [batches(range(12), rank=rank, world_size=2) for rank in (0, 1)]
    assert [a[1] + b[1] for a, b in zip(*parts, strict=True)] == [ids for _, ids, _ in whole]


def test_an_image_that_comes_again_has_another_turn():
    found = batches(range(60))
    for epoch in range(10):
        seen = [pair for at, ids, turns in found if at == epoch for pair in zip(ids, turns, strict=True)]
        assert len(set(seen)) == len(seen)
        assert all(turn < np.ceil(FACTORS[number]) for number, turn in seen)
        assert any(turn > 0 for _, turn in seen)
