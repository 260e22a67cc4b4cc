"""A bad image is skipped, listed and replaced, alike for any number of workers."""

import itertools

import pytest
import torch

from moco.data.loader.bad_images import Quarantine
from moco.data.sources.folder import DataError
from moco.rng import fold
from tests.data.loader.loading import SEED, loader, no_limit, same, spoil, view_of


def test_any_number_of_workers_skips_and_replaces_a_bad_image_alike(images, tmp_path):
    names = spoil(images, 3, 11, 20)
    runs = []
    for workers in (0, 1, 4):
        quarantine = no_limit(images, tmp_path / f"bad{workers}.csv")
        runs.append(list(loader(images, workers=workers, quarantine=quarantine)))
        assert sorted(quarantine.bad) == sorted(names)
        assert all(name in (tmp_path / f"bad{workers}.csv").read_text() for name in names)
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])


def test_a_bad_image_is_replaced_by_the_first_good_one_drawn(images):
    bad = {3, 11, 20, 21, 22, 23}
    spoil(images, *bad)
    made = loader(images)
    for drawn, batch in zip(made.sampler, made, strict=True):
        for asked, got in zip(drawn.ids.tolist(), batch.ids.tolist(), strict=True):
            candidates = (fold(SEED, drawn.epoch, asked, attempt) % 30 for attempt in itertools.count())
            assert got == (asked if asked not in bad else next(one for one in candidates if one not in bad))


def test_a_replacement_gets_the_random_numbers_of_the_image_it_replaces(images):
    """With its own, it could be the same picture twice in one mini-batch."""
    spoil(images, 3, 11, 20)
    made = loader(images)
    replaced = 0
    for drawn, batch in zip(made.sampler, made, strict=True):
        for row, (asked, got) in enumerate(zip(drawn.ids.tolist(), batch.ids.tolist(), strict=True)):
            expected = view_of(images.read(got), drawn.epoch, asked, 0)
            assert torch.equal(batch.views[0][row], expected)
            replaced += asked != got
    assert replaced


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_images_stop_the_run(images, workers: int):
    spoil(images, 3, 11, 20)
    with pytest.raises(DataError, match=r"3 of 30 images are bad, more than the 2"):
        list(loader(images, workers=workers, quarantine=Quarantine(None, 2, 30)))


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_are_all_bad_stop_the_run(images, workers: int):
    spoil(images, *range(30))
    with pytest.raises(DataError, match="all bad"):
        list(loader(images, workers=workers))


def test_an_image_that_goes_bad_after_it_was_read_into_memory_is_still_used(small_ones):
    before = list(loader(small_ones, steps=range(30)))
    made = loader(small_ones, steps=range(30))
    batches = iter(made)
    whole_epochs = [next(batches) for _ in range(29)]
    assert made.maker.cache is not None
    assert made.maker.cache.filled.all()
    spoil(small_ones, *range(30))
    assert same([*whole_epochs, next(batches)], before)
