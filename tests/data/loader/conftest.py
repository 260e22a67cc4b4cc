"""Folders of images for the tests of the loader."""

import pytest
from sample_pictures import make_pictures

from moco.data.sources.folder import Folder, find_images


@pytest.fixture
def small_ones(tmp_path) -> Folder:
    """30 pictures of 20 x 24 pixels: small enough to be held in memory."""
    return find_images(make_pictures(tmp_path / "small", 30))


@pytest.fixture
def mixed_ones(tmp_path) -> Folder:
    """30 pictures of two sizes, read one by one."""
    make_pictures(tmp_path / "mixed" / "a", 15, side=20)
    make_pictures(tmp_path / "mixed" / "b", 15, side=31)
    return find_images(tmp_path / "mixed")


@pytest.fixture(params=["small_ones", "mixed_ones"])
def images(request) -> Folder:
    """Both kinds."""
    return request.getfixturevalue(request.param)
