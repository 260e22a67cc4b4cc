"""Parquet files and data sets saved by Hugging Face `datasets`: the same images and batches as their folder."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from sample_pictures import make_pictures

from moco.data.decode.decode import BadImage
from moco.data.shards.pack import pack
from moco.data.sources.folder import Folder, find_images
from moco.data.sources.images import DataError
from moco.data.sources.open import list_image_files, open_images
from moco.data.sources.tables import TableImages
from tests.data.loader.loading import loader, same

CLASSES = ["class0", "class1", "class2"]
IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
FEATURES = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
HUGGING_FACE = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return find_images(make_pictures(tmp_path / "photos", 30, classes=3))


def table_of(images: Folder, *, named: bool = True, paths: bool = True) -> pyarrow.Table:
    """The table that `datasets` makes of a folder of images."""
    rows = [
        {"bytes": Path(images.path(i)).read_bytes(), "path": Path(images.path(i)).name if paths else None}
        for i in range(len(images))
    ]
    assert images.labels is not None
    table = pyarrow.table(
        {"image": pyarrow.array(rows, IMAGE), "label": pyarrow.array(images.labels.tolist(), pyarrow.int64())}
    )
    return table.replace_schema_metadata(HUGGING_FACE) if named else table


def parquet_of(path: Path, table: pyarrow.Table) -> Path:
    parquet.write_table(table, path, row_group_size=7)
    return path


def saved(path: Path, table: pyarrow.Table) -> Path:
    """The folder that `save_to_disk` of `datasets` writes, with two files."""
    path.mkdir(parents=True)
    names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    for name, part in zip(names, (table.slice(0, 20), table.slice(20)), strict=True):
        with pyarrow.ipc.new_stream(path / name, table.schema) as writer:
            writer.write_table(part, max_chunksize=6)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return path


WRITERS = {
    "Parquet": lambda folder, table: parquet_of(folder / "p.parquet", table),
    "saved": lambda folder, table: saved(folder / "saved", table),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_has_the_images_labels_and_batches_of_its_folder(folder: Folder, tmp_path: Path, kind: str):
    images = open_images(WRITERS[kind](tmp_path, table_of(folder)))
    assert all(np.array_equal(images.read(i), folder.read(i)) for i in range(30))
    assert np.array_equal(images.labels, folder.labels)
    assert list(images.classes) == CLASSES
    assert list(images.names)[28:] == ["000000028.png", "000000029.png"]
    expected = list(loader(folder))
    assert same(list(loader(images, workers=2)), expected)
    assert same(list(loader(images, workers=2, processes=True)), expected)
    assert same(list(loader(pickle.loads(pickle.dumps(images)), steps=range(2, 6))), expected[2:])


def test_several_files_follow_each_other(folder: Folder, tmp_path: Path):
    table = table_of(folder)
    files = [parquet_of(tmp_path / f"{i}.parquet", table.slice(10 * i, 10)) for i in range(3)]
    images = open_images([str(file) for file in files])
    assert all(np.array_equal(images.read(i), folder.read(i)) for i in range(30))
    assert list_image_files(images) == [str(file) for file in files]


@pytest.mark.parametrize("memory", [0, 10_000, 2**30])
def test_row_groups_that_leave_memory_are_read_again(folder: Folder, tmp_path: Path, memory: int):
    images = TableImages([parquet_of(tmp_path / "p.parquet", table_of(folder))], memory=memory)
    for index in np.random.default_rng(0).permutation(60) % 30:
        assert np.array_equal(images.read(int(index)), folder.read(int(index)))
    assert len(images._kept) == {0: 1, 10_000: 1, 2**30: 5}[memory]


def test_labels_without_names_are_their_numbers_and_minus_one_is_none(folder: Folder, tmp_path: Path):
    plain = open_images(parquet_of(tmp_path / "p.parquet", table_of(folder, named=False)))
    assert list(plain.classes) == ["0", "1", "2"]
    table = table_of(folder)
    hidden = table.set_column(1, "label", pyarrow.array([0, -1, 1] * 10, pyarrow.int64()))
    assert open_images(parquet_of(tmp_path / "q.parquet", hidden)).labels is None


def test_rows_without_bytes_are_bad_images_and_no_path_is_followed(folder: Folder, tmp_path: Path):
    rows = [{"bytes": None, "path": folder.path(0)}, None, {"bytes": b"", "path": None}, {"bytes": b"x", "path": None}]
    images = open_images(parquet_of(tmp_path / "p.parquet", pyarrow.table({"image": pyarrow.array(rows, IMAGE)})))
    for index, reason in enumerate(["the path of a file, not its bytes"] * 2 + ["0 bytes", "not a JPEG"]):
        with pytest.raises(BadImage, match=reason):
            images.read(index)


def test_shards_that_are_packed_from_a_table_have_its_files(folder: Folder, tmp_path: Path):
    images = open_images(saved(tmp_path / "saved", table_of(folder)))
    pack(images, tmp_path / "shards")
    shards = open_images(tmp_path / "shards")
    assert all(shards.read_bytes(i) == Path(folder.path(i)).read_bytes() for i in range(30))


def test_files_that_are_no_tables_of_images_are_refused(folder: Folder, tmp_path: Path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no table")
    numbers = parquet_of(tmp_path / "n.parquet", pyarrow.table({"x": [1, 2]}))
    empty = parquet_of(tmp_path / "e.parquet", table_of(folder).slice(0, 0))
    cases = [(tmp_path / "bad.parquet", "cannot be read as a table"), (numbers, "has 0 columns of images"),
             (empty, "has no rows")]  # fmt: skip
    for path, reason in cases:
        with pytest.raises(DataError, match=reason):
            open_images(path)


def test_a_data_set_with_splits_says_which(folder: Folder, tmp_path: Path):
    saved(tmp_path / "all" / "train", table_of(folder))
    saved(tmp_path / "all" / "test", table_of(folder))
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match="several splits, test, train"):
        open_images(tmp_path / "all")


def test_files_that_a_state_names_outside_of_its_folder_are_not_read(folder: Folder, tmp_path: Path):
    saved(tmp_path / "other", table_of(folder))
    (tmp_path / "bad").mkdir()
    state = {"_data_files": [{"filename": "../other/data-00000-of-00002.arrow"}]}
    (tmp_path / "bad" / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="cannot be read as a table"):
        open_images(tmp_path / "bad")


def test_without_pyarrow_the_error_names_the_extra(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = parquet_of(tmp_path / "p.parquet", table_of(folder))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'pip install "\.\[data\]"'):
        open_images(path)


@pytest.mark.parametrize("column", ["image.path", "label"])
def test_a_damaged_page_of_a_table_is_an_error_in_words(folder: Folder, tmp_path: Path, column: str):
    file = parquet_of(tmp_path / "p.parquet", table_of(folder))
    facts = parquet.ParquetFile(file).metadata.row_group(2)
    columns = {facts.column(number).path_in_schema: facts.column(number) for number in range(facts.num_columns)}
    place, content = columns[column].data_page_offset, bytearray(file.read_bytes())
    content[place : place + 8] = bytes(8)
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a table"):
        open_images(file)


def test_labels_that_are_no_numbers_of_the_classes_are_their_own_names(folder: Folder, tmp_path: Path):
    table = table_of(folder)
    names = pyarrow.array([f"kind{i % 2}" for i in range(len(folder))])
    images = open_images(parquet_of(tmp_path / "p.parquet", table.set_column(1, "label", names)))
    assert list(images.classes) == ["kind0", "kind1"]


def test_paths_that_are_no_text_are_left_out(folder: Folder, tmp_path: Path):
    rows = [{"bytes": Path(folder.path(i)).read_bytes(), "path": i} for i in range(len(folder))]
    images = open_images(parquet_of(tmp_path / "p.parquet", pyarrow.table({"image": rows})))
    assert np.array_equal(images.read(3), folder.read(3))


def test_a_row_group_that_unpacks_to_far_more_than_images_do_is_not_unpacked(tmp_path: Path):
    rows = pyarrow.array([{"bytes": bytes(2**28 + 2**20), "path": "0.png"}], IMAGE)
    parquet.write_table(
        pyarrow.table({"image": rows}), tmp_path / "p.parquet", compression="zstd", use_dictionary=False
    )
    del rows
    with pytest.raises(BadImage, match="unpacks to"):
        open_images(tmp_path / "p.parquet").read(0)
