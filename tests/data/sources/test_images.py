"""Data sets of others as Images, some images of many, and the split that evaluation uses."""

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import make_pictures
from torch.utils.data import TensorDataset

from moco.data.decode.decode import BadImage
from moco.data.sources.folder import find_images
from moco.data.sources.images import DataError, Subset
from moco.data.sources.split import split_sources
from moco.data.sources.torch_dataset import DatasetImages

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)


class Items:
    """A map-style data set of given items."""

    def __init__(self, *items, **attributes):
        self.items, self.reads = items, 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        self.reads += 1
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


# --- DatasetImages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [Image.fromarray(PIXELS), torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()), PIXELS],
    ids=["pillow", "tensor", "array"],
)
@pytest.mark.parametrize("label", [(), (3,)], ids=["alone", "labelled"])
def test_an_item_is_read_as_rgb(image, label: tuple):
    item = (image, *label) if label else image
    assert np.array_equal(DatasetImages(Items(item)).read(0), PIXELS)


@pytest.mark.parametrize(
    "image",
    [torch.from_numpy(PIXELS[None, ..., 0].copy()), PIXELS[..., 0], PIXELS[..., :1], Image.fromarray(PIXELS[..., 0])],
)
def test_a_grey_item_is_repeated(image):
    assert np.array_equal(DatasetImages(Items(image)).read(0), np.repeat(PIXELS[..., :1], 3, axis=2))


def test_a_torch_data_set_is_wrapped():
    images = torch.from_numpy(np.stack([PIXELS.transpose(2, 0, 1)] * 3))
    wrapped = DatasetImages(TensorDataset(images, torch.tensor([2, 0, 1])))
    assert (len(wrapped), list(wrapped.names)) == (3, ["0", "1", "2"])
    assert wrapped.labels is not None
    assert wrapped.labels.tolist() == [2, 0, 1]
    assert list(wrapped.classes) == ["0", "1", "2"]
    assert wrapped.sizes.tolist() == wrapped.mtimes.tolist() == [0, 0, 0]


def test_labels_and_class_names_of_a_data_set_are_used_without_reading_it():
    items = Items((PIXELS, 1), (PIXELS, 0), targets=[1, 0], classes=["ant", "cat"])
    wrapped = DatasetImages(items)
    assert wrapped.labels is not None
    assert (wrapped.labels.tolist(), list(wrapped.classes)) == ([1, 0], ["ant", "cat"])
    assert items.reads == 0


def test_images_alone_have_no_labels():
    wrapped = DatasetImages(Items(PIXELS, PIXELS))
    assert wrapped.labels is None
    assert list(wrapped.classes) == []


def test_labels_are_not_looked_for_before_they_are_wanted():
    items = Items((PIXELS, 1), (PIXELS, 0))
    DatasetImages(items).read(0)
    assert items.reads == 1


def test_an_item_that_cannot_be_read_is_a_bad_image():
    with pytest.raises(BadImage, match="1: OSError: no luck") as caught:
        DatasetImages(Items(PIXELS, OSError("no luck"))).read(1)
    assert caught.value.name == "1"


@pytest.mark.parametrize(
    "item",
    [
        torch.rand(3, 4, 5),
        PIXELS.astype(np.float32),
        torch.zeros(4, 8, 8, dtype=torch.uint8),
        "x.jpg",
        {"image": 7},
        7,
    ],
    ids=["float tensor", "float array", "four channels", "path", "dict", "number"],
)
def test_an_item_that_is_no_image_is_an_error_that_says_what_is_expected(item):
    with pytest.raises(DataError, match="uint8"):
        DatasetImages(Items(item)).read(0)


def test_labels_that_are_not_whole_numbers_are_an_error():
    with pytest.raises(DataError, match="whole numbers"):
        DatasetImages(Items((PIXELS, "cat"))).labels


# --- Subset ---------------------------------------------------------------------------------------------------------


def test_a_subset_has_the_images_at_its_indices(tmp_path):
    images = find_images(make_pictures(tmp_path, 9, classes=3))
    some = Subset(images, [8, 0, 4])
    assert list(some.names) == [images.names[8], images.names[0], images.names[4]]
    assert some.labels is not None
    assert some.labels.tolist() == [2, 0, 1]
    assert some.sizes.tolist() == images.sizes[[8, 0, 4]].tolist()
    assert np.array_equal(some.read(0), images.read(8))
    assert len(some) == 3


@pytest.mark.parametrize("indices", [[9], [-1]])
def test_a_subset_of_missing_images_is_an_error(tmp_path, indices: list[int]):
    with pytest.raises(DataError, match=r"\[0, 9\)"):
        Subset(find_images(make_pictures(tmp_path, 9)), indices)


# --- split ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test", "val"])
def test_train_and_test_folders_are_the_split(tmp_path, name: str):
    make_pictures(tmp_path / "train", 8, classes=2)
    make_pictures(tmp_path / name, 4, classes=2)
    split = split_sources(tmp_path)
    assert (len(split.train), len(split.test)) == (8, 4)
    assert "train/ (8 images)" in split.how
    assert f"{name}/ (4 images)" in split.how


def test_test_images_without_labels_give_way_to_validation_images_with_labels(tmp_path):
    make_pictures(tmp_path / "train", 8, classes=2)
    make_pictures(tmp_path / "test", 3)
    make_pictures(tmp_path / "val", 4, classes=2)
    assert len(split_sources(tmp_path).test) == 4


def test_a_class_has_one_number_in_both_parts(tmp_path):
    make_pictures(tmp_path / "train", 9, classes=3)
    make_pictures(tmp_path / "test", 3, classes=3)
    for picture in (tmp_path / "test" / "class0").iterdir():
        picture.unlink()
    split = split_sources(tmp_path)
    assert split.test.labels is not None
    assert split.test.labels.tolist() == [1, 2]
    assert list(split.test.classes) == list(split.train.classes)


def test_a_class_that_is_only_in_the_test_images_is_an_error(tmp_path):
    make_pictures(tmp_path / "train", 8, classes=2)
    make_pictures(tmp_path / "test", 8, classes=4)
    with pytest.raises(DataError, match=r"2 classes .* class2, class3"):
        split_sources(tmp_path)


def test_without_such_folders_a_fifth_of_each_class_is_held_out(tmp_path):
    split = split_sources(make_pictures(tmp_path, 60, classes=4))
    assert split.train.labels is not None
    assert split.test.labels is not None
    assert np.bincount(split.test.labels).tolist() == [3] * 4
    assert np.bincount(split.train.labels).tolist() == [12] * 4
    assert not set(split.train.names) & set(split.test.names)
    assert "one in 5 of each class" in split.how


def test_the_fifth_is_the_same_each_time_and_not_the_last_one(tmp_path):
    make_pictures(tmp_path, 50)
    one, again = split_sources(tmp_path), split_sources([tmp_path])
    assert list(one.test.names) == list(again.test.names)
    assert list(one.test.names) != [f"{i:04d}.png" for i in range(40, 50)]
    assert list(one.test.names) != [f"{i:04d}.png" for i in range(4, 50, 5)]


def test_a_class_of_few_images_keeps_them_for_training(tmp_path):
    make_pictures(tmp_path / "many", 20)
    make_pictures(tmp_path / "few", 3)
    split = split_sources(tmp_path)
    assert split.test.labels is not None
    assert list(split.test.classes) == ["few", "many"]
    assert np.bincount(split.test.labels, minlength=2).tolist() == [0, 4]


def test_images_are_split_as_a_folder_is(tmp_path):
    make_pictures(tmp_path, 20)
    assert list(split_sources(find_images(tmp_path)).test.names) == list(split_sources(tmp_path).test.names)


def test_too_few_images_to_hold_any_out_are_an_error(tmp_path):
    with pytest.raises(DataError, match="too few"):
        split_sources(make_pictures(tmp_path, 4))
