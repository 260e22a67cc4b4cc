"""Reading data sets of one class for each image: folders, CIFAR, Flowers, Pets, iNaturalist."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from moco.data.sources.images import DataError, Images
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_classes
from moco.transfer.readers.mat import read_mat
from moco.transfer.readers.shared import ReadOptions
from tests.transfer.sample_voc import picture

TRAIN, TEST = ReadOptions(split="train"), ReadOptions(split="test")


def of(images: Images) -> list[tuple[str, str]]:
    """Name and class of each image."""
    assert images.labels is not None
    return [(name, images.classes[label]) for name, label in zip(images.names, images.labels, strict=True)]


def test_class_folders_are_read_with_the_classes_of_training(tmp_path: Path):
    for name in ("train/dog/b.jpg", "train/cat/a.jpg", "val/dog/c.jpg", "val/dog/d.jpg"):
        picture(tmp_path / name)
    train = read_classes(tmp_path, TRAIN)
    assert of(train) == [("cat/a.jpg", "cat"), ("dog/b.jpg", "dog")]
    val = read_classes(tmp_path, ReadOptions(split="val", classes=("cat", "dog")))
    assert of(val) == [("dog/c.jpg", "dog"), ("dog/d.jpg", "dog")]
    assert val.read(0).shape == (40, 50, 3)
    assert isinstance(val, Images)
    with pytest.raises(DataError, match="has the class dog; expected"):
        read_classes(tmp_path, ReadOptions(split="train", classes=("cat",)))
    with pytest.raises(DataError, match="has no folder test"):
        read_classes(tmp_path, TEST)


def pets(root: Path, trainval: str) -> Path:
    for name in ("Abyssinian_1", "great_pyrenees_2", "great_pyrenees_10"):
        picture(root / "images" / f"{name}.jpg")
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "trainval.txt").write_text(trainval)
    (root / "annotations" / "test.txt").write_text("")
    return root


def test_pets_are_in_the_order_of_the_list_and_classes_in_that_of_their_numbers(tmp_path: Path):
    root = pets(tmp_path, "#Image CLASS-ID SPECIES BREED ID\ngreat_pyrenees_10 2 2 1\nAbyssinian_1 1 1 1\n")
    images = read_classes(root, ReadOptions(split="trainval"))
    assert images.classes == ("Abyssinian", "great_pyrenees")
    assert of(images) == [("great_pyrenees_10", "great_pyrenees"), ("Abyssinian_1", "Abyssinian")]
    with pytest.raises(DataError, match=r"splits trainval, test: expected one of them, got train\. Name it by --split"):
        read_classes(root, TRAIN)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Abyssinian_1 1 1", "line 1: expected name, class, species and breed, got 'Abyssinian_1 1 1'"),
        ("Abyssinian_1 one 1 1", "line 1: expected name, class, species and breed"),
        ("Abyssinian_1 0 1 1", "line 1: class 0 is out of range, not Abyssinian"),
        ("Abyssinian_3 1 1 1", r"line 1: there is no Abyssinian_3\.jpg in "),
        ("Abyssinian_1 1 1 1\ngreat_pyrenees_2 1 2 1", "line 2: class 1 is Abyssinian, not great_pyrenees"),
        ("great_pyrenees_2 2 2 1", "the classes are not numbered from 1 without gaps"),
        ("../../etc/passwd_1 1 1 1", r"there is no \.\./\.\./etc/passwd_1\.jpg"),
    ],
)
def test_a_malformed_list_of_pets_is_an_error_with_its_line(tmp_path: Path, line: str, message: str):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_classes(pets(tmp_path, line + "\n"), ReadOptions(split="trainval"))
    assert caught.value.file.name == "trainval.txt"


def flowers(root: Path, labels: Any = (5, 102, 1, 5), train: Any = (3, 1)) -> Path:
    for number in range(1, 5):
        picture(root / "jpg" / f"image_{number:05d}.jpg")
    scipy.io.savemat(root / "imagelabels.mat", {"labels": np.array([labels])})
    ids = {"trnid": np.array([train]), "valid": np.array([[4]]), "tstid": np.array([[2]])}
    scipy.io.savemat(root / "setid.mat", ids)
    return root


def test_flowers_are_read_from_their_mat_files_and_splits_are_joined(tmp_path: Path):
    images = read_classes(flowers(tmp_path), ReadOptions(split="train+val"))
    assert of(images) == [("image_00003", "1"), ("image_00001", "5"), ("image_00004", "5")]
    assert len(images.classes) == 102
    assert images.labels is not None
    assert images.labels.tolist() == [0, 4, 4]
    with pytest.raises(DataError, match=r"splits train, val, test: .* or several joined by \+, got none"):
        read_classes(tmp_path)


def test_damaged_mat_files_are_errors_with_the_file(tmp_path: Path):
    root = flowers(tmp_path, labels=(5, 103, 1, 5))
    with pytest.raises(AnnotationError, match="expected classes 1 to 102, got 103"):
        read_classes(root, TRAIN)
    with pytest.raises(AnnotationError, match=r"image_00009: .* has no class for it"):
        read_classes(flowers(tmp_path, train=(9,)), TRAIN)
    whole = (flowers(tmp_path) / "imagelabels.mat").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(100):
        damaged = bytearray(whole[: int(rng.integers(len(whole)))] if number % 2 else whole)
        for place in rng.integers(0, max(len(damaged), 1), 3) if damaged else ():
            damaged[place] = int(rng.integers(256))
        (root / "imagelabels.mat").write_bytes(damaged)
        error = error_of(root)
        refused += error is not None
        assert error is None or "imagelabels.mat" in str(error) or "setid.mat" in str(error)
    assert refused > 50


def error_of(root: Path) -> AnnotationError | None:
    try:
        read_classes(root, TRAIN, format="flowers")
    except AnnotationError as error:
        return error
    return None


def inaturalist(root: Path, **changes: Any) -> Path:
    content = {
        "categories": [{"id": 7, "name": "6238", "supercategory": "Plantae"},
                       {"id": 3, "name": "1", "supercategory": "Aves"}],
        "images": [{"id": 20, "file_name": "train_val2018/Aves/3/b.jpg"},
                   {"id": 4, "file_name": "train_val2018/Plantae/7/a.jpg"}],
        "annotations": [{"id": 1, "image_id": 20, "category_id": 3}, {"id": 2, "image_id": 4, "category_id": 7}],
    }  # fmt: skip
    for image in content["images"]:
        picture(root / str(image["file_name"]))
    (root / "train2018.json").write_text(json.dumps({**content, **changes}))
    (root / "val2018.json").write_text(json.dumps({**content, "images": content["images"][:1]}))
    return root


def test_inaturalist_is_read_from_its_json_by_ids(tmp_path: Path):
    images = read_classes(inaturalist(tmp_path), TRAIN)
    assert images.classes == ("1", "6238")
    assert of(images) == [("train_val2018/Plantae/7/a.jpg", "6238"), ("train_val2018/Aves/3/b.jpg", "1")]
    assert len(read_classes(tmp_path, ReadOptions(split="val"))) == 1
    assert len(read_classes(tmp_path / "train2018.json")) == 2
    with pytest.raises(DataError, match="splits train, val: expected one of them, got none"):
        read_classes(tmp_path)


def test_categories_of_one_name_are_told_apart_by_their_ids(tmp_path: Path):
    same = [{"id": 7, "name": "daisy"}, {"id": 3, "name": "daisy"}]
    assert read_classes(inaturalist(tmp_path, categories=same), TRAIN).classes == ("daisy 3", "daisy 7")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "has no categories"),
        ({"categories": [{"id": 3, "name": "a"}] * 2}, "category 3: another category has the same id"),
        ({"images": [{"id": 4, "file_name": "z.jpg"}]}, r"image 4: there is no file z\.jpg in "),
        ({"images": [{"id": 5, "file_name": "train_val2018/Aves/3/b.jpg"}]}, "image 5: has no annotation"),
        ({"images": [{"id": 4}]}, "image 4: has no 'file_name'"),
        ({"annotations": [{"id": 1, "image_id": 20, "category_id": 9}]}, "annotation 1: category_id 9: there is no"),
        ({"annotations": [{"id": 1, "image_id": 20, "category_id": 3}] * 2}, "annotation 1: image 20 has another"),
        ({"annotations": [{"id": 1, "image_id": None, "category_id": 3}]}, "annotation 1: has no 'image_id'"),
    ],
)
def test_a_malformed_json_is_an_error_with_its_entry(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_classes(inaturalist(tmp_path, **changes), TRAIN)
    assert caught.value.file == tmp_path / "train2018.json"


def text(value: bytes) -> bytes:
    """A text as Python 2 pickles it."""
    return b"T" + len(value).to_bytes(4, "little") + value


def numbers(values: list[int]) -> bytes:
    return b"](" + b"".join(b"K" + bytes([value]) for value in values) + b"e"


def cifar(root: Path, kind: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """The version `kind`, with 3 images in each batch; the pixels N x H x W x 3 and fine labels of training."""
    rng, hundred = np.random.default_rng(0), "100" in kind
    batches = 1 if hundred else 5
    rows = [rng.integers(0, 256, (3, 3072), dtype=np.uint8) for _ in range(batches)]
    labels = [rng.integers(0, 100 if hundred else 10, 3) for _ in range(batches)]
    root.mkdir(parents=True, exist_ok=True)
    names = ["train"] if hundred else [f"data_batch_{number}" for number in range(1, 6)]
    classes = [f"class{number}" for number in range(100 if hundred else 10)]
    for name, row, label in zip(
        [*names, "test" if hundred else "test_batch"], [*rows, rows[0]], [*labels, labels[0]], strict=True
    ):
        if kind.startswith("bin"):
            coarse = [np.zeros((3, 1), dtype=np.uint8)] if hundred else []
            whole = np.concatenate([*coarse, label[:, None].astype(np.uint8), row], axis=1)
            (root / f"{name}.bin").write_bytes(whole.tobytes())
        else:
            key = b"fine_labels" if hundred else b"labels"
            array = (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03M\x00\x0c\x86"
            )
            content = text(b"batch_label") + text(b"training batch 1 of 5") + text(key) + numbers(label.tolist())
            content += text(b"data") + array + text(row.tobytes()) + b"tb"
            (root / name).write_bytes(b"\x80\x02}(" + content + b"u.")
    if kind.startswith("bin"):
        (root / ("fine_label_names.txt" if hundred else "batches.meta.txt")).write_text("\n".join(classes) + "\n\n")
    else:
        listed = text(b"fine_label_names" if hundred else b"label_names")
        listed += b"](" + b"".join(text(name.encode()) for name in classes) + b"e"
        before = text(b"num_cases_per_batch") + b"M\x10\x27"
        (root / ("meta" if hundred else "batches.meta")).write_bytes(b"\x80\x02}(" + before + listed + b"u.")
    pixels = np.concatenate(rows).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return root, pixels, np.concatenate(labels)


@pytest.mark.parametrize("kind", ["bin 10", "bin 100", "py 10", "py 100"])
def test_each_version_of_cifar_has_the_same_pixels_and_labels(tmp_path: Path, kind: str):
    root, pixels, labels = cifar(tmp_path, kind)
    images = read_classes(root, TRAIN)
    assert images.labels is not None
    assert images.labels.tolist() == labels.tolist()
    assert all((images.read(index) == pixels[index]).all() for index in range(len(images)))
    assert images.classes == tuple(f"class{number}" for number in range(100 if "100" in kind else 10))
    assert len(read_classes(root, TEST)) == 3
    with pytest.raises(DataError, match="splits train, test: expected one of them, got val"):
        read_classes(root, ReadOptions(split="val"))


def test_a_pickle_with_code_is_not_executed(tmp_path: Path):
    root, _, _ = cifar(tmp_path / "cifar", "py 10")
    ran = tmp_path / "ran"
    (root / "data_batch_3").write_bytes(b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR.")
    with pytest.raises(AnnotationError, match="data_batch_3: has 0 labels and 0 bytes of pixels"):
        read_classes(root, TRAIN)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("bin 10", lambda data: data[:-1], "expected rows of 3,073"),
        ("bin 10", lambda data: b"", "has 0 bytes"),
        ("bin 10", lambda data: b"\x0b" + data[1:], "image 0: has the class 11; expected 0 to 9"),
        ("py 10", lambda data: data[:-100], "is not a pickle of CIFAR"),
        ("py 10", lambda data: b"no pickle", "is not a pickle of CIFAR"),
    ],
)
def test_damaged_batches_are_errors_with_the_file(tmp_path: Path, kind: str, damage: Any, message: str):
    root, _, _ = cifar(tmp_path, kind)
    file = root / ("data_batch_2.bin" if kind == "bin 10" else "data_batch_2")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(AnnotationError, match=message) as caught:
        read_classes(root, TRAIN)
    assert caught.value.file == file


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_arrays_of_mat_files_are_those_that_scipy_wrote(tmp_path: Path, dtype: str, compressed: bool):
    rng = np.random.default_rng(0)
    arrays = {f"a{shape[0]}": rng.integers(0, 100, shape).astype(dtype) for shape in ((1, 3), (4, 5), (2, 3, 4))}
    scipy.io.savemat(tmp_path / "a.mat", {**arrays, "text": "no numbers", "cell": np.array([1, "a"], dtype=object)},
                     do_compression=compressed)  # fmt: skip
    read = read_mat(tmp_path / "a.mat")
    assert {*read} == {*arrays}
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert (read[name] == array).all()
