"""A new kind of source is one entry in SOURCE_KINDS: everything that reads images can then use it."""

from pathlib import Path

import numpy as np
import pytest

from moco.data.sources import open as open_module
from moco.data.sources.background_scan import BackgroundScan
from moco.data.sources.images import DataError, Images
from moco.data.sources.open import SOURCE_KINDS, SourceKind, open_folder, open_images
from moco.data.sources.split import split_sources
from moco.data.sources.torch_dataset import open_dataset

GREYS = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1) * np.ones((1, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def greys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers a kind of source: the text `greys:N` stands for N grey images."""

    def accepts(data: object) -> bool:
        return isinstance(data, str) and data.startswith("greys:")

    def open_greys(data: str, single: bool) -> Images:
        return open_dataset(GREYS[: int(data.removeprefix("greys:"))])

    monkeypatch.setattr(open_module, "SOURCE_KINDS", (SourceKind("greys:N", accepts, open_greys), *SOURCE_KINDS))


def test_a_registered_kind_is_opened(greys: None):
    assert np.array_equal(open_images("greys:3").read(2), GREYS[2])


def test_evaluation_splits_a_registered_kind(greys: None):
    split = split_sources("greys:20")
    assert (len(split.train), len(split.test)) == (16, 4)


def test_the_message_for_unknown_data_lists_a_registered_kind(greys: None):
    with pytest.raises(DataError, match="expected greys:N, folders, list files, shards, zip files, tables or URLs, a"):
        open_images(7)


def test_a_caller_that_needs_files_refuses_images_that_are_none():
    with pytest.raises(DataError, match="expected folders or list files, whose images are files; got a ndarray"):
        open_folder(GREYS)


def test_a_scan_is_opened_by_the_same_function(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        open_images(BackgroundScan([str(tmp_path / "missing")]))
