"""Further views of the key and small crops: views like the others, with their own size and random numbers."""

import numpy as np
import pytest
import torch

from moco.data.augment import cpu
from moco.data.augment.random_parameters import random_numbers
from moco.data.loader.loader import ViewLoader
from moco.recipe import View
from tests.data.loader.loading import CPU, DATA, SEED, STRONG, no_limit, same

MORE = DATA.model_copy(update={"key_views": 2, "small_crops": 2, "small_size": 10, "small_area": (0.05, 0.2)})


def made(images, data=MORE, **options):
    settings = {"batch_size": 8, "seed": SEED, "steps": range(3), "workers": 0, "device": CPU} | options
    return list(ViewLoader(images, data, quarantine=no_limit(images), **settings))


def test_the_pair_of_views_is_what_it_is_alone(images):
    for more, pair in zip(made(images), made(images, DATA), strict=True):
        assert [view.shape[-1] for view in more.views] == [16, 16, 16, 10, 10]
        assert all(map(torch.equal, more.views[:2], pair.views))


def test_each_further_view_is_drawn_by_its_own_numbers(images):
    """The reference: the same view made alone, with the numbers of its place among the views."""
    batch = made(images, steps=range(1))[0]
    small = STRONG.model_copy(update={"crop_area": (0.05, 0.2)})
    for place, (view, size) in enumerate(
        [(STRONG, 16), (View(blur=0.3), 16), (View(blur=0.3), 16), (small, 10), (small, 10)]
    ):
        drawn = cpu.DrawnView(view, random_numbers(SEED, 0, ids=batch.ids.numpy(), view_index=place))
        for row, index in enumerate(batch.ids.tolist()):
            out = np.empty((1, size, size, 3), np.uint8)
            alone = cpu.DrawnView(view, drawn.numbers.rows(slice(row, row + 1)))
            cpu.write_views(images.read(index), [alone], 0, [out], coloured=True)
            pixels = torch.from_numpy(out[0]).permute(2, 0, 1) / 255
            expected = (pixels - torch.tensor(MORE.mean).view(3, 1, 1)) / torch.tensor(MORE.std).view(3, 1, 1)
            torch.testing.assert_close(batch.views[place][row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 2, "processes": True}], ids=["threads", "processes"])
def test_workers_make_the_same_views(images, options):
    assert same(made(images, **options), made(images))


def test_small_crops_show_the_share_of_the_image_that_is_asked_for(images):
    (view, size) = MORE.all_views[-1]
    numbers = random_numbers(SEED, 0, ids=np.arange(2000), view_index=4)
    drawn = cpu.DrawnView(view, numbers)
    shares = [np.prod(drawn.box(row, 100, 100)[2:]) / 1e4 for row in range(2000)]
    assert size == 10
    assert min(shares) > 0.045
    assert max(shares) < 0.21
    assert np.mean(shares) == pytest.approx(0.125, abs=0.005)


def test_scaled_decoding_keeps_enough_pixels_for_each_view():
    views = [
        cpu.DrawnView(view, random_numbers(SEED, 0, ids=np.arange(50), view_index=i))
        for i, (view, _) in enumerate(MORE.all_views)
    ]
    sizes = [size for _, size in MORE.all_views]
    found = set()
    for row in range(50):
        divisor = cpu.divisor_for(200, 240, drawn=views, row=row, sizes=sizes)
        found.add(divisor)
        for view, size in zip(views, sizes, strict=True):
            assert divisor == 1 or view.box(row, 200, 240)[2:].min() // divisor >= size
    assert len(found) > 1
