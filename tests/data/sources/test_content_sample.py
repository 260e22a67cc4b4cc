"""Images that have only new times of change are told from images with other contents."""

import os

import numpy as np
import pytest
from sample_pictures import make_pictures

from moco.data.sources import content_sample as module
from moco.data.sources.content_sample import content_sample, same_contents
from moco.data.sources.folder import find_images
from moco.data.sources.manifest import manifest_of
from moco.data.sources.torch_dataset import DatasetImages
from moco.train.pretrain import pretrain
from moco.transfer.labelled import Item, LabelledFiles
from tests.train.helpers import Messages, losses, stop


@pytest.fixture
def folder(tmp_path):
    return make_pictures(tmp_path / "images", 20)


def redate(folder, count: int = 20, *, time: int = 5) -> None:
    for file in sorted(folder.iterdir())[:count]:
        os.utime(file, ns=(time, time))


def rewrite(file) -> None:
    """Change one byte, and neither the size nor the time."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def note(folder, change) -> str:
    images = find_images(folder)
    was, before = list(content_sample(images)), manifest_of(images)
    change(folder)
    images = find_images(folder)
    return same_contents(was, before, manifest_of(images), images)


@pytest.mark.parametrize("count", [1, 20])
def test_new_times_alone_are_the_same_contents(folder, count):
    assert note(folder, lambda folder: redate(folder, count)).startswith(f"{count} of 20 images have another time")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (redate(folder), rewrite(folder / "0007.png")),
        lambda folder: (redate(folder), (folder / "0007.png").rename(folder / "x.png")),
        lambda folder: (redate(folder), (folder / "0007.png").unlink()),
        lambda folder: (redate(folder), (folder / "0007.png").write_bytes(b"")),
    ],
)
def test_other_contents_names_or_sizes_are_not(folder, change):
    assert note(folder, change) == ""


def test_of_many_images_all_must_have_new_times(folder, monkeypatch):
    monkeypatch.setattr(module, "FILES", 8)
    assert note(folder, lambda folder: redate(folder, 3)) == ""
    assert "(8 files were read)" in note(folder, lambda folder: redate(folder, time=7))


def test_start_and_end_of_a_large_file_are_compared(folder, monkeypatch):
    monkeypatch.setattr(module, "BYTES", 16)
    file = folder / "0003.png"
    for place in (0, 15, file.stat().st_size - 16, file.stat().st_size - 1):
        before, content = content_sample(find_images(folder)), bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)
        assert content_sample(find_images(folder)) != before


def test_an_unreadable_file_has_other_contents(folder):
    images = find_images(folder)
    before = content_sample(images)
    (folder / "0003.png").unlink()
    assert content_sample(images) != before


def test_labelled_files_have_a_sample_and_arrays_have_none(folder):
    files = LabelledFiles([Item(file, file.name, 0) for file in sorted(folder.iterdir())], ["a"])
    assert content_sample(files) == content_sample(find_images(folder))
    assert content_sample(DatasetImages([np.zeros((4, 4, 3), np.uint8)] * 3)) is None


@pytest.mark.parametrize("damaged", [None, 3, [1], {}, ["x", "y"]])
def test_a_damaged_record_is_not_the_same(folder, damaged):
    images = find_images(folder)
    assert same_contents(damaged, manifest_of(images), manifest_of(images), images) == ""


def test_a_run_resumes_on_a_copy_with_the_same_bits(pictures, tiny, tmp_path):
    pretrain(pictures, tmp_path / "whole", recipe=tiny)
    out, messages = stop(pictures, tmp_path / "run", tiny), Messages()
    redate(pictures, 40)
    pretrain(pictures, out, recipe=tiny, reporter=messages)
    assert any("40 of 40 images have another time of change" in line for line in messages.lines)
    assert losses(out) == losses(tmp_path / "whole")
