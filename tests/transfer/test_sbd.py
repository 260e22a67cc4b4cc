"""SBD's .mat files as labels of pixels, and VOC's train_aug made of VOC and SBD."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from moco.data.sources.images import DataError
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import PIXEL_FORMATS, read_semantic, recognise
from moco.transfer.readers.mat import read_structs
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.task_registry import TASKS
from tests.transfer.sample_voc import LABELS, picture, voc

GREY = np.array([[0, 15, 15], [20, 0, 7]], dtype=np.uint8)


def write_mat(file: Path, labels: np.ndarray, *, compressed: bool = True, **other: Any) -> Path:
    """GTcls as SBD has it: boundaries (a sparse matrix for each class), labels, and the classes that are present."""
    file.parent.mkdir(parents=True, exist_ok=True)
    boundaries = np.empty((20, 1), dtype=object)
    for place in range(20):
        boundaries[place, 0] = scipy.sparse.csc_matrix(np.eye(2, 3) * (place == 3))
    content = {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": np.unique(labels)[1:]}
    scipy.io.savemat(file, {"GTcls": content} | other, do_compression=compressed)
    return file


def sbd(root: Path, train: list[str], val: list[str]) -> Path:
    """SBD in the layout of its archive."""
    for name in {*train, *val}:
        write_mat(root / "cls" / f"{name}.mat", GREY)
        picture(root / "img" / f"{name}.jpg", 3, 2)
    for split, names in (("train", train), ("val", val)):
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.mark.parametrize("compressed", [True, False])
def test_a_structure_is_read_as_scipy_reads_it(tmp_path: Path, compressed: bool):
    values = np.random.default_rng(0).integers(0, 21, (37, 50), dtype=np.uint8)
    file = write_mat(tmp_path / "a.mat", values, compressed=compressed, plain=np.arange(3.0))
    expected = scipy.io.loadmat(file)["GTcls"][0, 0]
    found = read_structs(file)
    assert [*found] == ["GTcls"]
    assert {*found["GTcls"]} == {"Segmentation", "CategoriesPresent"}  # cells are left out
    for name, one in found["GTcls"].items():
        assert one.dtype == expected[name].dtype
        assert np.array_equal(one, expected[name])


def test_sbd_alone_has_the_21_classes_in_the_order_of_its_lists(tmp_path: Path):
    sbd(tmp_path / "benchmark_RELEASE" / "dataset", ["2008_000003", "2008_000002"], ["2009_000001"])
    assert recognise(tmp_path, PIXEL_FORMATS) == "sbd"
    scenes = read_semantic(tmp_path, ReadOptions(split="train+val"))
    assert [one.id for one in scenes.scenes] == ["2008_000003", "2008_000002", "2009_000001"]
    assert (len(scenes.classes), scenes.classes[15]) == (21, "person")
    assert scenes.read_labels(0).tolist() == GREY.tolist()
    assert scenes.summary.pixels[[0, 7, 15, 20]].tolist() == [6, 3, 6, 3]
    with pytest.raises(DataError, match=r"splits train, val: .* or several joined by \+, got trainval"):
        read_semantic(tmp_path, ReadOptions(split="trainval"))


@pytest.mark.parametrize("place", ["VOCdevkit/SBD", "VOCdevkit/benchmark_RELEASE/dataset", "VOCdevkit/VOC2012/SBD"])
def test_trainaug_is_vocs_train_and_sbd_without_vocs_val(tmp_path: Path, place: str):
    """VOC's own labels for images that both have; no image of VOC's val, none twice."""
    devkit = tmp_path / "VOCdevkit"
    voc(devkit, names=("2007_000033", "2007_000032"), split="train")
    voc(devkit, names=("2007_000042",), split="val")
    sbd(tmp_path / place, ["2008_000003", "2007_000032", "2007_000042"], ["2008_000001", "2008_000003"])
    scenes = read_semantic(devkit, ReadOptions(split="trainaug"))
    assert [one.id for one in scenes.scenes] == ["2007_000033", "2007_000032", "2008_000003", "2008_000001"]
    assert [one.labels.suffix for one in scenes.scenes] == [".png", ".png", ".mat", ".mat"]
    assert scenes.read_labels(1).tolist() == LABELS.tolist()
    assert scenes.read_labels(2).tolist() == GREY.tolist()
    assert TASKS["segment"].digest(scenes) == scenes.summary.digest
    assert len(read_semantic(devkit, ReadOptions(split="2012_trainaug"))) == 4
    with pytest.raises(DataError, match=r"splits 2012_train, 2012_val.*got 2007_trainaug"):
        read_semantic(devkit, ReadOptions(split="2007_trainaug"))


def test_a_list_of_the_user_is_read_with_labels_of_sbd(tmp_path: Path):
    voc(tmp_path, names=("2007_000033",), split="train")
    sbd(tmp_path / "SBD", ["2008_000003"], [])
    (tmp_path / "VOC2012" / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("2008_000003\n2007_000033\n")
    scenes = read_semantic(tmp_path, ReadOptions(split="trainaug"))
    assert [scenes.read_labels(i).tolist() for i in range(2)] == [GREY.tolist(), LABELS.tolist()]
    (tmp_path / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt").write_text("2008_000003\n")
    with pytest.raises(AnnotationError, match=r"train\.txt, 2008_000003: there is no such file in"):
        read_semantic(tmp_path, ReadOptions(split="train"))  # SBD's labels are for trainaug only


MALFORMED: dict[str, dict[str, Any]] = {
    "another variable": {"GTinst": {"Segmentation": GREY}},
    "no structure": {"GTcls": GREY},
    "no field": {"GTcls": {"Boundaries": GREY}},
    "fractions": {"GTcls": {"Segmentation": GREY + 0.5}},
    "large values": {"GTcls": {"Segmentation": GREY.astype(np.int32) + 300}},
    "negative values": {"GTcls": {"Segmentation": GREY.astype(np.int32) - 1}},
    "three axes": {"GTcls": {"Segmentation": np.zeros((2, 3, 2), dtype=np.uint8)}},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_file_without_labels_is_an_error_with_its_name(tmp_path: Path, case: str):
    sbd(tmp_path, ["2008_000003"], [])
    file = tmp_path / "cls" / "2008_000003.mat"
    scipy.io.savemat(file, MALFORMED[case])
    with pytest.raises(AnnotationError, match=r"003\.mat, 2008_000003: expected GTcls\.Segmentation"):
        read_semantic(tmp_path, ReadOptions(split="train")).read_labels(0)


def test_values_that_are_no_class_and_other_sizes_are_errors(tmp_path: Path):
    sbd(tmp_path, ["2008_000003"], [])
    scenes = read_semantic(tmp_path, ReadOptions(split="train"))
    write_mat(tmp_path / "cls" / "2008_000003.mat", GREY + 5)
    with pytest.raises(AnnotationError, match=r"values that are no class: \[25\]"):
        scenes.read_labels(0)
    write_mat(tmp_path / "cls" / "2008_000003.mat", GREY[:, :2])
    with pytest.raises(AnnotationError, match="has 2 x 2 pixels, its image 3 x 2"):
        scenes.read_labels(0)


def test_damaged_files_are_read_or_refused(tmp_path: Path):
    """200 files with changed or missing bytes: classes of 2 x 3 pixels, or an AnnotationError."""
    sbd(tmp_path, ["2008_000003"], [])
    file = tmp_path / "cls" / "2008_000003.mat"
    scenes = read_semantic(tmp_path, ReadOptions(split="train"))
    rng, refused = np.random.default_rng(0), 0
    for compressed in (True, False):
        whole = write_mat(file, GREY, compressed=compressed).read_bytes()
        for _ in range(100):
            damaged = bytearray(whole[: int(rng.integers(len(whole)))] if rng.random() < 0.3 else whole)
            for place in rng.integers(0, max(len(damaged), 1), 4) if damaged else ():
                damaged[place] = int(rng.integers(256))
            file.write_bytes(bytes(damaged))
            try:
                assert scenes.read_labels(0).shape == (2, 3)
            except AnnotationError:
                refused += 1
    assert 40 < refused < 200
