"""Mini-batches of photographs that are decoded smaller: the same for any number of workers, near the exact ones."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pillow_views import photo

from moco.data.loader.loader import ViewBatch, ViewLoader
from moco.data.loader.shrunk import ShrunkImages
from moco.data.shards.shards import Shards
from moco.data.sources.folder import Folder, find_images
from moco.data.sources.images import Subset, read_scaled
from moco.recipe import DataSpec, Jitter, View
from tests.data.loader.loading import CPU, CountingImages, no_limit, same, spoil
from tests.data.shards.sample_tars import write_tar

PLAIN = View(jitter=Jitter(p=0.0), grey=0.0)
SCALED = DataSpec(size=24, eval_resize=24, decode="scaled", views=(View(), View(blur=0.5)))
EXACT = SCALED.model_copy(update={"decode": "exact"})
NAMES = [f"{number:02d}.jpg" for number in range(16)]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """JPEG files, some of which are grey, turned, or too small to be decoded smaller; two are PNG."""
    found = {}
    for number, name in enumerate(NAMES):
        buffer, exif = io.BytesIO(), Image.Exif()
        exif[274] = number % 8 + 1
        picture = Image.fromarray(photo(203 - number, 267 + number, number) if number % 5 else photo(40, 50, number))
        picture = picture.convert("L") if number % 4 == 3 else picture
        picture.save(buffer, "PNG" if number in (6, 7) else "JPEG", exif=exif, quality=95)
        found[name] = buffer.getvalue()
    return found


@pytest.fixture
def images(tmp_path, files) -> Folder:
    (tmp_path / "photos").mkdir()
    for name, content in files.items():
        (tmp_path / "photos" / name).write_bytes(content)
    return find_images(tmp_path / "photos")


def batches(images, data: DataSpec = SCALED, **options) -> list[ViewBatch]:
    settings = {"workers": 0, "batch_size": 8, "seed": 7, "steps": range(4), "device": CPU} | options
    settings.setdefault("quarantine", no_limit(images))
    return list(ViewLoader(images, data, **settings))


def test_any_number_of_workers_processes_and_first_steps_make_the_same_mini_batches(images):
    expected = batches(images)
    assert same(batches(images, workers=3), expected)
    assert same(batches(images, workers=2, processes=True), expected)
    assert same(batches(images, steps=range(2, 4)), expected[2:])
    assert not same(batches(images, EXACT), expected)


def test_views_are_near_those_of_all_pixels(images):
    """The same crops: a shift by a pixel would show. Colour changes are left out, as they enlarge differences."""
    data = SCALED.model_copy(update={"views": (PLAIN, PLAIN), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
    exact = batches(images, data.model_copy(update={"decode": "exact"}), steps=range(8))
    found = batches(images, data, steps=range(8))
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(found, exact, strict=True))
    errors = [
        (mine - theirs).square().mean((1, 2, 3))
        for one, other in zip(found, exact, strict=True)
        for mine, theirs in zip(one.views, other.views, strict=True)
    ]
    psnr = -10 * torch.log10(torch.cat(errors).clamp(min=1e-9))
    assert (psnr < 60).float().mean() > 0.5  # more than half of the images are decoded smaller
    assert psnr.median() > 33
    assert psnr.min() > 25


def test_images_that_are_too_small_have_the_bits_of_exact_decoding(images, files):
    few = Subset(images, [index for index, name in enumerate(NAMES) if index % 5 == 0 or index in (6, 7)])
    assert len(few) == 6
    assert same(batches(few, batch_size=4), batches(few, EXACT, batch_size=4))


def test_a_bad_image_is_replaced_and_listed_as_with_exact_decoding(images):
    spoil(images, 3, 4)
    found, exact = no_limit(images), no_limit(images)
    mine, theirs = batches(images, quarantine=found), batches(images, EXACT, quarantine=exact)
    assert found.bad == exact.bad
    assert len(found.bad) == 2
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(mine, theirs, strict=True))


def test_shards_give_the_mini_batches_of_their_folder(images, files, tmp_path):
    shards = Shards([write_tar(tmp_path / "s.tar", list(files.items()))])
    assert same(batches(shards), batches(images))


def test_a_source_that_only_decodes_whole_images_is_accepted(images):
    assert same(batches(CountingImages(images)), batches(images, EXACT))


@pytest.mark.parametrize("side", [24, 50, 100])
def test_images_in_memory_have_the_size_that_they_have_without(images: Folder, side: int):
    exact, scaled = ShrunkImages(images, side), ShrunkImages(images, side, scaled=True)
    differences = []
    for index in range(len(images)):
        one, other = exact.read(index), scaled.read(index)
        assert one.shape == other.shape
        differences.append(np.abs(one.astype(float) - other).mean())
    assert np.median(differences) < 3
    assert any(differences)


def test_images_in_memory_are_decoded_smaller(images: Folder, monkeypatch):
    sizes = []

    def reading(images, index, choose):
        found = read_scaled(images, index, choose)
        sizes.append((found.divisor, min(found.height, found.width), min(found.pixels.shape[:2])))
        return found

    monkeypatch.setattr("moco.data.loader.shrunk.read_scaled", reading)
    data = SCALED.model_copy(update={"shrink": 48})
    assert same(batches(images, data), batches(images, data, workers=2, processes=True))
    assert {divisor for divisor, _, _ in sizes} == {1, 2, 4}
    assert all(now >= 48 for divisor, _, now in sizes if divisor > 1)


def test_the_file_of_a_missing_image_is_named(images: Folder):
    Path(images.path(0)).unlink()
    with pytest.raises(Exception, match=r"00\.jpg: no such file"):
        images.read_scaled(0, lambda *_: 8)
