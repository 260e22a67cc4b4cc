"""The split that evaluation uses, and which images have labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sample_pictures import make_pictures
from torch.utils.data import TensorDataset

from moco.data.sources.folder import DataError
from moco.data.sources.labels import is_split_name
from moco.data.sources.split import split_of, split_sources


@pytest.fixture
def lines(tmp_path):
    """The lines of a list of 20 images with two labels."""
    make_pictures(tmp_path, 20)
    return [f"{i:04}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(20)]


def write(tmp_path, lines, name: str = "list.csv") -> str:
    (tmp_path / name).write_text("".join(lines))
    return str(tmp_path / name)


@pytest.mark.parametrize("line", ["0000.png,cat\n", "../{}/0000.png,cat\n"])
def test_a_file_that_a_list_has_with_two_labels_is_refused(tmp_path, lines, line):
    listed = write(tmp_path, [*lines, line.format(tmp_path.name)])
    with pytest.raises(DataError, match=r"0000\.png twice, with the labels dog and cat"):
        split_sources(listed)
    other = write(tmp_path, lines[:4], "other.csv")
    for data, test in ((listed, other), (other, listed)):
        with pytest.raises(DataError, match="twice, with the labels"):
            split_of(data, test)


def test_files_that_a_list_repeats_are_reported(tmp_path, lines):
    assert "more than once" not in split_sources(write(tmp_path, lines)).how
    how = split_sources(write(tmp_path, [*lines, lines[0], lines[3], lines[3]])).how
    assert how.endswith("2 files of the images are listed more than once: 0000.png, 0003.png")


def stray(folder: Path, *names: str) -> None:
    """Images outside the class folders."""
    make_pictures(folder / "aside", len(names))
    for path, name in zip(sorted((folder / "aside").iterdir()), names, strict=True):
        path.rename(folder / name)
    (folder / "aside").rmdir()


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "valid"), ("train", "validation"), ("train", "dev"), ("Train", "Test"), ("TRAIN", "VAL"),
        ("training", "testing"), ("training_set", "test_set"), ("train2017", "val2017"), ("train", "eval"),
    ],
)  # fmt: skip
def test_folders_with_the_usual_names_of_a_split_are_the_split(tmp_path: Path, train: str, test: str):
    make_pictures(tmp_path / train, 8, classes=2)
    make_pictures(tmp_path / test, 4, classes=2)
    split = split_sources(tmp_path)
    assert (len(split.train), len(split.test)) == (8, 4)
    assert list(split.train.classes) == ["class0", "class1"]
    assert f"{train}/ (8 images) and {test}/ (4 images)" in split.how


def test_a_data_set_in_python_is_split_as_files_are():
    images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    data = TensorDataset(images, torch.arange(40) % 2)
    split = split_sources(data)
    assert (len(split.train), len(split.test), list(split.train.classes)) == (32, 8, ["0", "1"])
    split = split_of(data, TensorDataset(images[:4], torch.tensor([1, 0, 0, 1])))
    assert split.test.labels is not None
    assert (len(split.train), split.test.labels.tolist()) == (40, [1, 0, 0, 1])


def test_test_images_are_preferred_to_validation_images(tmp_path: Path):
    make_pictures(tmp_path / "train", 8, classes=2)
    make_pictures(tmp_path / "Validation", 6, classes=2)
    make_pictures(tmp_path / "Testing", 4, classes=2)
    assert len(split_sources(tmp_path).test) == 4


@pytest.mark.parametrize("names", [("test", "val"), ("train", "unlabeled"), ("Valid", "dev")])
def test_classes_that_are_all_names_of_splits_are_refused(tmp_path: Path, names: tuple[str, str]):
    for name in names:
        make_pictures(tmp_path / name, 10)
    with pytest.raises(DataError, match="names of splits"):
        split_sources(tmp_path)
    with pytest.raises(DataError, match="names of splits"):
        split_of(tmp_path, tmp_path)


def test_a_list_whose_labels_are_names_of_splits_is_refused(tmp_path: Path):
    make_pictures(tmp_path, 10)
    lines = [f"{i:04d}.png,{'train' if i < 8 else 'test'}" for i in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="names of splits"):
        split_sources(tmp_path / "list.csv")


def test_a_train_among_other_vehicles_is_a_class(tmp_path: Path):
    for name in ("train", "car", "ship"):
        make_pictures(tmp_path / name, 10)
    assert list(split_sources(tmp_path).train.classes) == ["car", "ship", "train"]


def test_several_training_folders_are_refused(tmp_path: Path):
    for name in ("train", "Training", "test"):
        make_pictures(tmp_path / name, 4, classes=2)
    with pytest.raises(DataError, match="several training folders, Training, train"):
        split_sources(tmp_path)


@pytest.mark.parametrize("name", ["cat", "class0", "testimony", "trains", "set", "devil", "validator"])
def test_other_words_are_no_names_of_splits(name: str):
    assert not is_split_name(name)


def test_a_test_folder_with_one_of_the_classes_has_labels(tmp_path: Path):
    make_pictures(tmp_path / "train", 8, classes=2)
    make_pictures(tmp_path / "test" / "class1", 3)
    for split in (split_sources(tmp_path), split_of(tmp_path / "train", tmp_path / "test")):
        assert split.test.labels is not None
        assert split.test.labels.tolist() == [1, 1, 1]
        assert list(split.test.classes) == ["class0", "class1"]


def test_one_image_beside_the_class_folders_is_left_out_and_named(tmp_path: Path):
    make_pictures(tmp_path, 40, classes=2)
    whole = split_sources(tmp_path)
    stray(tmp_path, "cover.png")
    split = split_sources(tmp_path)
    assert "without a label: cover.png" in split.how
    assert (list(split.train.names), list(split.test.names)) == (list(whole.train.names), list(whole.test.names))
    assert split.test.labels is not None
    assert whole.test.labels is not None
    assert split.test.labels.tolist() == whole.test.labels.tolist()


def test_one_image_beside_the_class_folders_of_train_or_test_is_left_out_and_named(tmp_path: Path):
    make_pictures(tmp_path / "train", 20, classes=2)
    make_pictures(tmp_path / "test", 20, classes=2)
    stray(tmp_path / "train", "a.png")
    stray(tmp_path / "test", "b.png")
    for split in (split_sources(tmp_path), split_of(tmp_path / "train", tmp_path / "test")):
        assert (len(split.train), len(split.test)) == (20, 20)
        assert "without a label: a.png" in split.how
        assert "without a label: b.png" in split.how


def test_many_images_beside_the_class_folders_are_the_reason_why_there_are_no_labels(tmp_path: Path):
    make_pictures(tmp_path, 10, classes=2)
    stray(tmp_path, "a.png", "b.png", "c.png", "d.png")
    with pytest.raises(DataError, match=r"4 of the 14 lie outside the class folders \(class0, class1\): a.png, b.png"):
        split_of(tmp_path, tmp_path)


def test_one_class_alone_is_the_reason_why_there_are_no_labels(tmp_path: Path):
    make_pictures(tmp_path / "data" / "cat", 10)
    with pytest.raises(DataError, match="all 10 are of one class, cat"):
        split_of(tmp_path / "data", tmp_path / "data")


def test_a_flat_folder_is_the_reason_why_there_are_no_labels(tmp_path: Path):
    make_pictures(tmp_path / "train", 10, classes=2)
    make_pictures(tmp_path / "test", 10)
    with pytest.raises(DataError, match=r"test have no labels: none of the 10 lies in a class folder"):
        split_sources(tmp_path)


def test_classes_of_which_no_image_is_tested_are_named(tmp_path: Path):
    make_pictures(tmp_path / "many", 20)
    make_pictures(tmp_path / "few", 3)
    assert "1 of 2 classes has fewer than 5 images, so none of it is tested: few" in split_sources(tmp_path).how
    make_pictures(tmp_path / "fewer", 2)
    assert (
        "2 of 3 classes have fewer than 5 images, so none of theirs is tested: few, fewer"
        in split_sources(tmp_path).how
    )


def test_classes_of_which_a_test_folder_has_no_image_are_named(tmp_path: Path):
    make_pictures(tmp_path / "train", 30, classes=3)
    make_pictures(tmp_path / "test" / "class1", 4)
    for split in (split_sources(tmp_path), split_of(tmp_path / "train", tmp_path / "test")):
        assert split.how.endswith("2 of 3 classes have no test image: class0, class2")


def test_a_python_test_set_may_lack_the_last_classes():
    image = np.zeros((8, 8, 3), np.uint8)
    split = split_of([(image, i % 3) for i in range(9)], [(image, i % 2) for i in range(4)])
    assert np.array(split.test.labels).tolist() == [0, 1, 0, 1]
    assert "1 of 3 classes has no test image: 2" in split.how
