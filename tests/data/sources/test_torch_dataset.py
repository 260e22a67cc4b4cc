"""What users hand over in Python: data sets that several threads must not read at once, and items of every kind."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.images import DataError, Images, Subset
from moco.data.sources.open import open_images
from moco.data.sources.torch_dataset import DatasetImages, for_process
from moco.device import workers_for
from moco.recipe import DataSpec, RecipeError, View

SIDE, COUNT = 6, 24
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
ITEM = IMAGES[0]


class Records(Dataset[Any]):
    """Images in one file, which is opened once: each is read by a seek and a read, as raw and idx readers do."""

    def __init__(self, path: Path):
        self.file, self.readers, self.most = path.open("rb", buffering=0), 0, 0

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> np.ndarray:
        self.readers += 1
        self.most = max(self.most, self.readers)  # threads that were here at once
        content = self.content(index * ITEM.nbytes)
        self.readers -= 1
        return np.frombuffer(content, dtype=np.uint8).reshape(ITEM.shape)

    def content(self, place: int) -> bytes:
        self.file.seek(place)
        time.sleep(0.001)
        return self.file.read(ITEM.nbytes)


class Reopened(Records):
    """The same, opened again in each copy."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


class Safe(Records):
    """Several threads may read it, and it says so."""

    thread_safe = True

    def content(self, place: int) -> bytes:
        time.sleep(0.001)
        return os.pread(self.file.fileno(), ITEM.nbytes, place)


class Items(Dataset[Any]):
    def __init__(self, *items: Any):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@pytest.fixture
def records(tmp_path) -> Path:
    path = tmp_path / "images.raw"
    path.write_bytes(IMAGES.tobytes())
    return path


def read_by_threads(images: Images, threads: int = 4) -> np.ndarray:
    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(images.read, range(len(images)))))


def views_of(images: Images, **options: Any) -> torch.Tensor:
    """The views of two epochs."""
    data = DataSpec(size=SIDE, eval_resize=SIDE, views=(View(), View()))
    loader = ViewLoader(
        images, data, batch_size=4, seed=1, steps=range(2 * COUNT // 4), device=torch.device("cpu"),
        quarantine=Quarantine(None, 0, len(images)), **options,
    )  # fmt: skip
    return torch.stack([view.clone() for batch in loader for view in batch.views])


# --- one thread at a time -------------------------------------------------------------------------------------------


def test_a_data_set_that_seeks_and_reads_returns_each_image_correctly(records):
    dataset = Records(records)
    assert np.array_equal(read_by_threads(open_images(dataset)), IMAGES)
    assert dataset.most == 1


def test_a_subset_of_a_data_set_that_seeks_and_reads_returns_each_image_correctly(records):
    part = Subset(open_images(Records(records)), [*range(COUNT - 1, -1, -1)])
    assert np.array_equal(read_by_threads(part), IMAGES[::-1])


def test_views_of_such_a_data_set_are_the_same_for_any_number_of_threads(records):
    assert torch.equal(views_of(open_images(Records(records)), workers=3), views_of(open_images(IMAGES), workers=0))


def test_a_data_set_declared_thread_safe_is_read_by_several_threads_at_once(records):
    dataset = Safe(records)
    assert np.array_equal(read_by_threads(open_images(dataset)), IMAGES)
    assert dataset.most > 1


def test_labels_are_read_while_no_other_thread_reads(records):
    class Labelled(Records):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index), index % 2

    dataset = Labelled(records)
    images = open_images(dataset)
    with ThreadPoolExecutor(4) as pool:
        labels = pool.submit(lambda: images.labels)
        list(pool.map(images.read, range(COUNT)))
    assert labels.result().tolist() == [0, 1] * (COUNT // 2)
    assert dataset.most == 1


# --- a copy for each process ----------------------------------------------------------------------------------------


def test_each_process_opens_the_file_of_its_copy(records):
    images = open_images(Reopened(records))
    assert torch.equal(views_of(images, workers=2, processes=True), views_of(images, workers=0))


@pytest.mark.parametrize("part", [lambda images: images, lambda images: Subset(images, range(8))])
def test_processes_that_would_share_an_open_file_are_refused(records, part: Callable[[Images], Images]):
    with pytest.raises(DataError, match=r"each process needs a copy .* Records .*__setstate__"):
        views_of(part(open_images(Records(records))), workers=2, processes=True)


def test_a_copy_of_a_data_set_shares_immutable_content():
    class Held(Items):
        def __init__(self):
            super().__init__(ITEM)
            self.change, self.content, self.seen = lambda x: x, bytes(10_000), [0]

    dataset = Held()
    copied = for_process(open_images(dataset))
    assert isinstance(copied, DatasetImages)
    other = copied.dataset
    assert other.items[0] is ITEM
    assert (other.change, other.content) == (dataset.change, dataset.content)
    assert other.content is dataset.content
    assert other.seen is not dataset.seen


# --- items ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    [
        {"image": Image.fromarray(ITEM), "label": 1},
        {"img": ITEM, "fine_label": 3, "coarse_label": 1},
        {"jpg": torch.from_numpy(ITEM).permute(2, 0, 1), "__key__": "a"},
        ({"image": ITEM}, 1),
        (ITEM, 1, "a.jpg"),
    ],
    ids=["pillow", "array", "tensor", "dict in a tuple", "three parts"],
)
def test_the_one_image_of_an_item_is_read(item):
    assert np.array_equal(open_images(Items(item)).read(0), ITEM)


@pytest.mark.parametrize("name", ["label", "labels", "target"])
def test_the_label_of_a_dict_is_found(name: str):
    images = open_images(Items({"image": ITEM, name: 1}, {"image": ITEM, name: 0}))
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"left": ITEM, "right": ITEM}, r"2 images \(left: a uint8 array \[6, 6, 3\], right: .* of your own"),
        ({"image": {"bytes": b"", "path": "a.jpg"}}, r"image: a dict.*Image\(decode=True\)"),
        ({"image": "a.jpg"}, "image: a str.*open the image in the data set"),
        (torch.rand(3, 8, 9), r"a float32 tensor \[3, 8, 9\].*transforms"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), r"a uint8 tensor \[8, 9, 3\].*permute\(2, 0, 1\)"),
        (np.zeros((3, 8, 9), dtype=np.uint8), r"a uint8 array \[3, 8, 9\].*transpose\(1, 2, 0\)"),
        (np.zeros((8, 9, 4), dtype=np.uint8), r"a uint8 array \[8, 9, 4\].*R, G and B"),
        (None, "a NoneType"),
    ],
)
def test_an_item_that_is_not_an_image_is_shown_as_it_was_given(item, words: str):
    with pytest.raises(DataError, match=words):
        open_images(Items(item))


def test_a_first_item_that_cannot_be_read_may_be_excluded_later():
    class Broken(Items):
        targets = (0, 1)

        def __getitem__(self, index: int) -> Any:
            if index == 0:
                raise OSError("no luck")
            return super().__getitem__(index)

    assert np.array_equal(open_images(Broken(ITEM, ITEM)).read(1), ITEM)


def test_a_label_that_cannot_be_read_is_named():
    class Broken(Items):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise OSError("no luck")
            return super().__getitem__(index)

    with pytest.raises(DataError, match=r"label of item 1 .*no luck.*`targets`"):
        DatasetImages(Broken((ITEM, 0), (ITEM, 1))).labels


# --- kinds of data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        IMAGES,
        torch.from_numpy(IMAGES).permute(0, 3, 1, 2),
        list(IMAGES),
        [Image.fromarray(one) for one in IMAGES],
        TensorDataset(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)),
    ],
    ids=["array", "tensor", "list of arrays", "list of images", "TensorDataset"],
)
def test_images_in_memory_are_read(data):
    images = open_images(data)
    assert len(images) == COUNT
    assert np.array_equal(images.read(5), IMAGES[5])


def test_an_array_of_grey_images_is_read():
    assert np.array_equal(open_images(IMAGES[..., 0]).read(2), np.repeat(IMAGES[2, ..., :1], 3, axis=2))


class Stream(IterableDataset[Any]):
    def __iter__(self):
        return iter(IMAGES)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataLoader(Items(ITEM)), r"got a DataLoader: give its data set \(loader.dataset\)"),
        (Stream(), "got an IterableDataset.*map-style"),
        ((one for one in IMAGES), "expected folders, list files, shards, zip files, tables or URLs.* got a generator"),
        (7, "expected folders, list files, shards, zip files, tables or URLs, a map-style Dataset.* got a int"),
        ({"a": ITEM}, "a dict"),
        (ITEM, r"expected many images.* a uint8 array \[6, 6, 3\]"),
        (torch.zeros(3, 8, 8), r"expected many images.* a float32 tensor \[3, 8, 8\]"),
    ],
    ids=["DataLoader", "IterableDataset", "generator", "number", "dict", "one array", "one tensor"],
)
def test_an_object_that_is_no_sequence_of_images_is_refused_with_advice(data, words: str):
    with pytest.raises(DataError, match=words):
        open_images(data)


@pytest.mark.parametrize("workers", [-1, True])
def test_an_invalid_number_of_workers_is_refused(workers: int):
    with pytest.raises(RecipeError, match="workers expects 0 or more"):
        workers_for(workers)
