"""Images that are shrunk when they are read, and kept in memory."""

import threading

import numpy as np
import pytest
from PIL import Image
from sample_pictures import make_pictures

from moco.data.loader.loader import ViewLoader
from moco.data.loader.shrunk import ShrunkImages, shrink
from moco.data.sources.folder import find_images
from moco.recipe import DataSpec, View
from tests.data.loader.loading import CPU, CountingImages, no_limit, same

DATA = DataSpec(size=16, eval_resize=16, shrink=24, views=(View(), View(blur=0.3)))


@pytest.fixture
def images(tmp_path):
    return find_images(make_pictures(tmp_path, 24, side=60))  # 60 x 64 pixels


def batches(images, data=DATA, **options):
    settings = {"workers": 2, "batch_size": 8, "seed": 7, "steps": range(9), "device": CPU} | options
    return list(ViewLoader(images, data, quarantine=no_limit(images), **settings))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(60, 64, (24, 26)), (64, 60, (26, 24)), (24, 90, (24, 90)), (20, 22, (20, 22)), (3000, 25, (2880, 24))],
)
def test_the_shorter_side_is_shrunk_and_the_aspect_stays(height, width, expected):
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    assert shrink(pixels, 24).shape == (*expected, 3)


def test_the_pixels_are_averages():
    """Noise loses nearly all of its spread, as averaging demands."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (240, 240, 3), dtype=np.uint8)
    small = shrink(noise, 24)
    # the triangle filter over 10 pixels has weights whose squares sum to 2 / (3 * 10) in each direction
    assert small.std() == pytest.approx(noise.std() * 2 / 30, rel=0.1)
    assert small.mean() == pytest.approx(noise.mean(), abs=0.5)


def test_each_image_is_read_once(images):
    counted = CountingImages(images)
    batches(counted)  # three epochs; the first image is also read for the size of all
    assert sorted(set(counted.reads)) == list(range(24))
    assert len(counted.reads) <= 24 + 8  # two threads may read an image at the same time


def test_images_that_do_not_fit_into_memory_are_read_again(images):
    size = 24 * 26 * 3
    counted = CountingImages(images)
    shrunk = ShrunkImages(counted, 24, memory=5 * size)
    for _ in range(3):
        for index in range(24):
            shrunk.read(index)
    assert len(counted.reads) == 5 + 3 * 19


def test_the_views_are_the_same_with_and_without_memory_for_any_number_of_workers_and_in_processes(images):
    expected = batches(images, workers=0)
    assert same(batches(images, workers=3), expected)
    assert same(batches(images, workers=2, processes=True), expected)
    assert same(batches(images, steps=range(4, 9)), expected[4:])  # as when a run resumes
    assert not same(batches(images, DATA.model_copy(update={"shrink": None})), expected)


def test_views_are_those_of_shrunk_files(images, tmp_path):
    """Against images that were shrunk on the disk before."""
    for index, name in enumerate(images.names):
        target = tmp_path / "small" / name
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(shrink(images.read(index), 24)).save(target)
    plain = DATA.model_copy(update={"shrink": None})
    assert same(batches(images), batches(find_images(tmp_path / "small"), plain))


def test_threads_may_share_them(images):
    shrunk, found = ShrunkImages(images, 24), {}

    def read(first: int) -> None:
        for index in range(24):
            found[first, index] = shrunk.read((index + first) % 24)

    threads = [threading.Thread(target=read, args=[first]) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (first, index), pixels in found.items():
        assert np.array_equal(pixels, shrink(images.read((index + first) % 24), 24))
