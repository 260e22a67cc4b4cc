"""Images with all their bands: what is measured, and what is refused."""

import numpy as np
import pytest
import tifffile
import torch

from moco.data.decode.decode import BadImage
from moco.data.sources.band_images import BandImages, as_pictures, in_bands, measure_bands
from moco.data.sources.images import DataError, Subset
from moco.data.sources.open import open_images
from moco.recipe import DataSpec

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Ten TIFF files of 5 bands with different ranges."""
    for i in range(10):
        array = RNG.normal(np.arange(1, 6) * 1000, np.arange(1, 6) * 100, (20, 24, 5)).clip(0).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"{i}.tif", array, photometric="minisblack", planarconfig="contig")
    return tmp_path


def test_ranges_are_percentiles_and_mean_and_deviation_are_of_the_mapped_values(folder):
    found = measure_bands(open_images(folder))
    every = np.concatenate([tifffile.imread(file).reshape(-1, 5) for file in sorted(folder.iterdir())]).astype(float)
    low, high = np.percentile(every, [0.1, 99.9], axis=0)
    np.testing.assert_allclose(found.ranges, np.stack([low, high], axis=1))
    unit = ((every - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(found.mean, unit.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.std, unit.std(axis=0), atol=1e-5)


def test_bytes_keep_their_whole_range():
    found = measure_bands(open_images(RNG.integers(10, 20, (6, 8, 8, 2), dtype=np.uint8), bands=True))
    assert found.ranges == [(0, 255), (0, 255)]


def test_images_are_read_as_values_between_0_and_1(folder):
    images = open_images(folder)
    data = DataSpec(bands=((0, 2000), (0, 4000), (0, 6000), (0, 8000), (0, 10000)), mean=(0,) * 5, std=(1,) * 5)
    read = in_bands(images, data).read(3)
    raw = tifffile.imread(folder / "3.tif").astype(np.float32)
    np.testing.assert_allclose(read, (raw / [2000, 4000, 6000, 8000, 10000]).clip(0, 1), rtol=1e-6)
    np.testing.assert_array_equal(BandImages(Subset(images, [3]), data.bands or ()).read(0), read)
    picture = as_pictures(images, data).read(3)
    np.testing.assert_array_equal(picture, np.round(255 * read[:, :, :3]))


def test_without_bands_nothing_changes(folder):
    images = open_images(folder)
    assert in_bands(images, DataSpec()) is images
    assert as_pictures(images, DataSpec()) is images


def test_arrays_lists_and_tensors_are_read_too():
    arrays = RNG.normal(0, 1, (4, 6, 7, 9)).astype(np.float32)
    for data in (arrays, list(arrays), torch.from_numpy(arrays).permute(0, 3, 1, 2)):
        np.testing.assert_array_equal(open_images(data, bands=True).read_bands(2), arrays[2])
    with pytest.raises(DataError, match="1 or 3 channels"):
        open_images(arrays)


def test_a_list_may_name_numpy_arrays(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", RNG.normal(0, 1, (6, 7, 4)))
    (tmp_path / "list.txt").write_text("0.npy\n1.npy\n2.npy\n")
    assert len(measure_bands(open_images(tmp_path / "list.txt")).ranges) == 4


def test_another_number_of_bands_is_refused_by_name(folder):
    tifffile.imwrite(
        folder / "9.tif", np.zeros((20, 24, 4), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(DataError, match=r"0\.tif has 5 bands, and 9\.tif has 4"):
        measure_bands(open_images(folder))
    with pytest.raises(BadImage, match=r"9\.tif: 4 bands: expected 5"):
        BandImages(open_images(folder), [(0, 1)] * 5).read(9)


def test_a_band_without_contrast_is_refused_by_number(folder):
    for file in folder.iterdir():
        array = tifffile.imread(file)
        array[:, :, 2] = 7
        tifffile.imwrite(file, array, photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=r"band 2 \(of 0 to 4\) has the same value everywhere"):
        measure_bands(open_images(folder))


def test_without_tifffile_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(DataError, match=r"tifffile.*\[bands\]"):
        measure_bands(open_images(folder))
