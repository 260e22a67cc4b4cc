"""Evaluation sees every image once and in order."""

from pathlib import Path

import pytest
import torch

from moco.data.augment.crop import eval_crop
from moco.data.augment.normalize import normalize
from moco.data.loader.loader import eval_batches
from moco.data.sources.folder import BadImage, DataError
from tests.data.loader.loading import CPU, DATA, CountingImages, data_threads, loader, no_limit, spoil


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_and_in_order(images, workers: int):
    made = list(eval_batches(images, DATA, batch_size=8, workers=workers, device=CPU))
    assert [len(ids) for _, ids in made] == [8, 8, 8, 6]
    assert torch.cat([ids for _, ids in made]).tolist() == list(range(30))
    for pixels, ids in made:
        for row, index in enumerate(ids.tolist()):
            crop = torch.from_numpy(eval_crop(images.read(index), DATA))[None]
            assert torch.equal(pixels[row], normalize(crop, mean=DATA.mean, std=DATA.std)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_an_evaluation(images, workers: int):
    (name,) = spoil(images, 9)
    with pytest.raises(DataError, match=f"{name}: .*repair it, or leave it out"):
        list(eval_batches(images, DATA, batch_size=8, workers=workers, device=CPU))


def test_a_missing_image_stops_an_evaluation_and_the_path_is_to_be_checked(images):
    Path(images.path(9)).unlink()
    with pytest.raises(DataError, match="no such file or directory: check the path"):
        list(eval_batches(images, DATA, batch_size=8, workers=0, device=CPU))


def test_an_evaluation_with_a_quarantine_skips_bad_images(images):
    names = spoil(images, 9, *range(16, 24))
    quarantine = no_limit(images)
    made = list(eval_batches(images, DATA, batch_size=8, workers=1, device=CPU, quarantine=quarantine))
    assert torch.cat([ids for _, ids in made]).tolist() == [*range(9), *range(10, 16), *range(24, 30)]
    assert [len(ids) for _, ids in made] == [8, 7, 6]
    assert list(quarantine.bad) == names


def test_an_evaluation_that_stops_early_leaves_no_thread(images):
    made = eval_batches(images, DATA, batch_size=2, workers=3, device=CPU)
    next(made)
    made.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not data_threads()


def test_bad_image_is_the_only_exception_that_counts_as_a_bad_image(mixed_ones):
    with pytest.raises(BadImage):
        CountingImages(mixed_ones, fails=lambda text: BadImage("x", text)).read(0)  # pyright: ignore[reportArgumentType]
    quarantine = no_limit(mixed_ones)
    with pytest.raises(OSError, match="out of luck"):
        list(loader(CountingImages(mixed_ones, fails=OSError, after=20), quarantine=quarantine))
    assert not quarantine.bad
