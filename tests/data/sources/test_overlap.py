"""The same files, and the same contents, among training and test images."""

import os
import shutil

import numpy as np
import pytest
from sample_pictures import make_pictures

from moco.data.sources import overlap
from moco.data.sources.folder import find_images
from moco.data.sources.images import DataError, Subset
from moco.data.sources.overlap import check_disjoint, copies_note
from moco.data.sources.split import split_sources
from moco.data.sources.torch_dataset import DatasetImages


@pytest.fixture
def train(tmp_path):
    return make_pictures(tmp_path / "train", 12, classes=2)


def test_a_folder_is_not_tested_on_itself(train):
    with pytest.raises(DataError, match="12 of 12 test images are among the training images"):
        check_disjoint(find_images(train), find_images(train))


@pytest.mark.parametrize("how", ["link to the folder", "links to files", "hard links", "a list"])
def test_the_same_files_are_found_under_other_names(train, tmp_path, how):
    test = make_pictures(tmp_path / "test", 4, classes=2, seed=7)
    (test / "class0" / "more").mkdir()
    for i in (0, 2, 4):
        file, other = train / "class0" / f"000{i}.png", test / "class0" / f"x{i}.png"
        if how == "links to files":
            other.symlink_to(file)
        if how == "hard links":
            os.link(file, other)
    if how == "link to the folder":
        (test / "class0" / "more" / "link").symlink_to(train / "class0")
    if how == "a list":
        test = tmp_path / "list.txt"
        test.write_text("".join(f"train/class0/000{i}.png\n" for i in (0, 2, 4)))
    with pytest.raises(DataError, match=r"(3|6) of \d+ test images are among"):
        check_disjoint(find_images(train), find_images(test))


def test_copies_are_noted_and_are_no_error(train, tmp_path):
    test = make_pictures(tmp_path / "test", 4, classes=2, seed=7)
    for i in (0, 2):
        shutil.copy2(train / "class0" / f"000{i}.png", test / "class0" / f"x{i}.png")  # the same time too
    found = find_images(train), find_images(test)
    check_disjoint(*found)
    assert copies_note(*found).startswith("2 test images of 6 have the same content as a training image: class0/x0.png")


def test_different_images_of_one_size_are_no_copies(tmp_path):
    for name, value in (("train", 1), ("test", 2)):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(bytes(overlap.HEAD) + bytes([value, i]))
    assert copies_note(find_images(tmp_path / "train"), find_images(tmp_path / "test")) == ""


def test_of_many_test_images_some_are_checked_and_the_note_says_so(train, tmp_path, monkeypatch):
    monkeypatch.setattr(overlap, "SOME", 3)
    shutil.copytree(train, tmp_path / "test")
    note = copies_note(find_images(train), find_images(tmp_path / "test"))
    assert note.startswith("3 test images of 3 checked, of 12, have the same content")


def test_a_held_out_part_is_disjoint_unless_a_list_has_a_file_twice(train, tmp_path):
    split = split_sources(train)
    check_disjoint(split.train, split.test)
    images = find_images(train)
    with pytest.raises(DataError, match="1 of 2 test images"):
        check_disjoint(Subset(images, [0, 1]), Subset(images, [1, 2]))


def test_images_that_are_not_files_are_not_inspected():
    images = DatasetImages([np.zeros((4, 4, 3), dtype=np.uint8)])
    check_disjoint(images, images)
    assert copies_note(images, images) == ""
