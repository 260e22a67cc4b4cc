"""Small images of one size stay in memory."""

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures

from moco.data.loader import cache
from moco.data.loader.cache import cache_for
from moco.data.sources.folder import find_images
from tests.data.loader.loading import loader, view_of


@pytest.mark.parametrize(("side", "together"), [(60, True), (61, False)])
def test_only_images_of_at_most_64_pixels_are_held_in_memory(tmp_path, side: int, together: bool):
    images = find_images(make_pictures(tmp_path, 3, side=side))  # side x (side + 4)
    assert (loader(images, batch_size=2).maker.cache is not None) == together


@pytest.mark.parametrize("odd_one", [0, 5, 9])
def test_images_of_another_size_than_the_first_are_not_held(tmp_path, odd_one: int):
    images = find_images(make_pictures(tmp_path, 10))
    make_pictures(tmp_path / "other", 1, side=21)
    (tmp_path / "other" / "0000.png").rename(images.path(odd_one))
    made = loader(images, batch_size=5, steps=range(4))
    for step, batch in enumerate(made):
        for row, index in enumerate(batch.ids.tolist()):
            assert torch.equal(batch.views[0][row], view_of(images.read(index), step // 2, index, 0))
    assert made.maker.cache is not None
    first_one_is_odd = [index == 0 for index in range(10)]
    others_are_odd = [index != odd_one for index in range(10)]
    assert made.maker.cache.filled.tolist() == (first_one_is_odd if odd_one == 0 else others_are_odd)


def test_images_larger_than_the_limit_together_are_not_held(small_ones, monkeypatch):
    monkeypatch.setattr(cache, "MAX_MEMORY", 30 * 3 * 20 * 24)
    assert cache_for(small_ones, (20, 24)) is not None
    monkeypatch.setattr(cache, "MAX_MEMORY", 30 * 3 * 20 * 24 - 1)
    assert cache_for(small_ones, (20, 24)) is None


def test_the_pixels_in_memory_are_those_of_the_files(small_ones):
    made = loader(small_ones, workers=3, steps=range(30))
    list(made)
    assert made.maker.cache is not None
    assert made.maker.cache.filled.all()
    for index in range(30):
        assert np.array_equal(made.maker.cache.pixels[index], small_ones.read(index))
