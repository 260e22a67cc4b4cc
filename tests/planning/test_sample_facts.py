"""What a sample tells about all images."""

import shutil

import numpy as np
import pytest
from sample_pictures import make_pictures

from moco.data.check.distinct import SamePictures, estimate_distinct
from moco.data.sources.folder import find_images
from moco.data.sources.images import DataError
from moco.planning.sample_facts import measure_sample


def test_the_size_and_number_of_different_pictures_are_estimated(tmp_path):
    make_pictures(tmp_path, 30, side=24)  # 24 x 28 pixels
    for file in sorted(tmp_path.glob("*.png")):
        shutil.copy(file, file.with_stem(f"{file.stem}-copy"))
    found = measure_sample(find_images(tmp_path), seconds=60)
    assert (found.images, found.side, found.pixels) == (60, 24, 24 * 28)
    assert found.distinct == 30
    assert 0 < found.read < 1


def test_unreadable_images_are_left_out_and_only_unreadable_ones_are_an_error(tmp_path):
    make_pictures(tmp_path, 4)
    (tmp_path / "0000.png").write_bytes(b"no picture")
    assert measure_sample(find_images(tmp_path), seconds=60).images == 3
    for file in tmp_path.glob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 4 images"):
        measure_sample(find_images(tmp_path), seconds=60)


def test_little_time_gives_a_smaller_sample(tmp_path):
    make_pictures(tmp_path, 50)
    assert measure_sample(find_images(tmp_path), seconds=0).images == 2


@pytest.mark.parametrize(("pictures", "copies"), [(200, 1), (200, 5), (40, 25)])
def test_the_estimate_is_right_for_copies_of_equal_number(pictures, copies):
    """Against a simulation: the pairs of a random sample that show the same picture."""
    rng, total, sampled, found = np.random.default_rng(0), pictures * copies, 150, []
    for _ in range(300):
        shown = rng.permutation(np.repeat(np.arange(pictures), copies))[:sampled]
        counts = np.bincount(shown)
        found.append((counts * (counts - 1)).sum() / (sampled * (sampled - 1)))
    assert estimate_distinct(total, sampled, SamePictures(float(np.mean(found)), 0.0)) == pytest.approx(
        pictures, rel=0.05
    )
