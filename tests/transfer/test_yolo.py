"""Reading YOLO text files, as the tools lay them out."""

from pathlib import Path

import numpy as np
import pytest

from moco.data.sources.images import DataError
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes
from moco.transfer.readers.shared import ReadOptions
from tests.transfer.sample_voc import picture


def ultralytics(root: Path, *, names: str = "names:\n  0: cat\n  1: dog\n", more: str = "") -> Path:
    """images/ and labels/ with train and val: a box, a polygon, an image without a file, an empty file."""
    (root / "data.yaml").write_text(f"path: ../datasets/pets\ntrain: images/train\nval: images/val\n{names}{more}")
    for split in ("train", "val"):
        (root / "labels" / split).mkdir(parents=True)
        for name in ("b.jpg", "a.png", "c.jpg"):
            picture(root / "images" / split / name, 50, 40)
    (root / "labels" / "train" / "a.txt").write_text("1 0.5 0.25 0.2 0.5\n\n0 0 0 0.5 0 0.5 1\n")
    (root / "labels" / "train" / "b.txt").write_text("")
    (root / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 1 1\r\n")
    return root


def test_boxes_and_polygons_are_fractions_of_the_image(tmp_path: Path):
    scenes = read_scenes(ultralytics(tmp_path), ReadOptions(split="train"))
    assert [scene.id for scene in scenes.scenes] == [f"images/train/{name}" for name in ("a.png", "b.jpg", "c.jpg")]
    assert scenes.classes == ("cat", "dog")
    objects = scenes.scenes[0].objects
    assert objects.boxes == pytest.approx(np.array([[20, 0, 30, 20], [0, 0, 25, 40]]))
    assert objects.labels.tolist() == [1, 0]
    assert objects.masks is not None
    assert objects.masks[0] is None
    assert isinstance(objects.masks[1], tuple)
    assert objects.masks[1][0].tolist() == [0, 0, 25, 0, 25, 40]
    assert objects.areas == pytest.approx([200, 500])
    assert [len(scene.objects) for scene in scenes.scenes] == [2, 0, 0]
    assert (scenes.scenes[0].width, scenes.scenes[0].height) == (50, 40)


def test_the_yaml_itself_and_names_in_a_list_are_read_and_a_split_must_be_chosen(tmp_path: Path):
    root = ultralytics(tmp_path, names="names: [cat, 7]\n")
    scenes = read_scenes(root / "data.yaml", ReadOptions(split="val"))
    assert scenes.classes == ("cat", "7")
    assert scenes.scenes[0].objects.boxes.tolist() == [[0, 0, 50, 40]]
    with pytest.raises(DataError, match="splits train, val: expected one of them"):
        read_scenes(root)
    with pytest.raises(DataError, match="splits train, val: expected one of them"):
        read_scenes(root, ReadOptions(split="test"))


def test_roboflow_puts_images_and_labels_into_each_split(tmp_path: Path):
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n")
    picture(tmp_path / "train" / "images" / "a_jpg.rf.01.jpg")
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "labels" / "a_jpg.rf.01.txt").write_text("0 0.5 0.5 0.5 0.5")
    assert len(read_scenes(tmp_path, ReadOptions(split="train")).scenes[0].objects) == 1
    with pytest.raises(AnnotationError, match=r"data\.yaml, val: there is no \.\./valid/images"):
        read_scenes(tmp_path, ReadOptions(split="val"))


def test_label_studio_writes_classes_txt_and_cvat_obj_names_beside_the_images(tmp_path: Path):
    studio, cvat = tmp_path / "studio", tmp_path / "cvat"
    picture(studio / "images" / "a.jpg")
    (studio / "labels").mkdir()
    (studio / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.5")
    (studio / "classes.txt").write_text("cat\ndog\n")
    scenes = read_scenes(studio)
    assert scenes.classes == ("cat", "dog")
    assert scenes.scenes[0].objects.labels.tolist() == [1]
    picture(cvat / "obj_train_data" / "a.jpg")
    (cvat / "obj_train_data" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (cvat / "obj.names").write_text("cat\n")
    (cvat / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    assert len(read_scenes(cvat).scenes[0].objects) == 1


def test_a_list_of_images_may_stand_for_a_folder(tmp_path: Path):
    root = ultralytics(tmp_path)
    (root / "data.yaml").write_text("train: lists/train.txt\nnames: [cat, dog]\n")
    (root / "lists").mkdir()
    (root / "lists" / "train.txt").write_text("/elsewhere/pets/images/train/c.jpg\n./images/train/a.png\n")
    assert [scene.path.name for scene in read_scenes(root, ReadOptions(split="train")).scenes] == ["a.png", "c.jpg"]
    (root / "lists" / "train.txt").write_text("images/train/z.jpg\n")
    with pytest.raises(AnnotationError, match=r"train\.txt, line 1: there is no images/train/z\.jpg"):
        read_scenes(root, ReadOptions(split="train"))


@pytest.mark.parametrize("numbers", [2, 3])
def test_keypoints_follow_the_box_with_or_without_visibility(tmp_path: Path, numbers: int):
    root = ultralytics(tmp_path, more=f"kpt_shape: [2, {numbers}]\n")
    points = "0.5 0.5 1 0 0 0" if numbers == 3 else "0.5 0.5 0 0"
    (root / "labels" / "val" / "a.txt").write_text(f"0 0.5 0.5 1 1 {points}\n")
    keypoints = read_scenes(root, ReadOptions(split="val")).scenes[0].objects.keypoints
    assert keypoints is not None
    assert keypoints[0].tolist() == [[25, 20, 1 if numbers == 3 else 2], [0, 0, 0]]


def test_no_text_file_at_all_is_an_error(tmp_path: Path):
    root = ultralytics(tmp_path)
    (root / "labels" / "val" / "a.txt").unlink()
    with pytest.raises(DataError, match=r"no image has a text file: expected .*labels.val.a\.txt"):
        read_scenes(root, ReadOptions(split="val"))


MALFORMED = {
    "0 0.5 0.5 0.5": "line 1: has 3 numbers after the class; expected 4",
    "0": "has 0 numbers after the class",
    "0 0.5 0.5 0.5 0.5 0.9": "has 5 numbers after the class",
    "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7": "has 7 numbers after the class",
    "2 0.5 0.5 0.5 0.5": "there is no class 2; expected 0 to 1",
    "-1 0.5 0.5 0.5 0.5": "there is no class -1",
    "0.5 0.5 0.5 0.5 0.5": "there is no class 0.5",
    "cat 0.5 0.5 0.5 0.5": "expected finite numbers, got 'cat 0.5 0.5 0.5 0.5'",
    "0 nan 0.5 0.5 0.5": "expected finite numbers",
    "0 inf 0.5 0.5 0.5": "expected finite numbers",
    "0 0.5,0.5,0.5,0.5": "expected finite numbers",
    "0 \x00 0.5 0.5 0.5": "expected finite numbers",
    "0 340 200 20 20": "expected fractions of the image from 0 to 1, got 340",
    "0 -0.5 0.5 0.5 0.5": "expected fractions of the image from 0 to 1, got -0.5",
    "0 0.1 0.2 0.3 0.4 0.5 6": "expected fractions of the image from 0 to 1, got 6",
    "0 0.5 0.5 -0.005 0.5": "the box has the negative size",
}


@pytest.mark.parametrize("line", MALFORMED)
def test_a_malformed_line_is_an_error_that_names_file_and_line(tmp_path: Path, line: str):
    root = ultralytics(tmp_path)
    file = root / "labels" / "val" / "b.txt"
    file.write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(AnnotationError, match=MALFORMED[line].replace("line 1", "line 2")) as caught:
        read_scenes(root, ReadOptions(split="val"))
    assert caught.value.file == file
    assert caught.value.entry == "line 2"
    skipped = read_scenes(root, ReadOptions(split="val", skip_bad=True))
    assert len(skipped.scenes[1].objects) == len(skipped.skipped) == 1


DESCRIPTIONS = {
    "names: {0: cat, 2: dog}": "names must be numbered from 0 without gaps",
    "names: {a: cat}": "names must be numbered from 0 without gaps",
    "names: 3": "names must be a list of class names",
    "names: []": "names must be a list of class names",
    "nc: 3": "has no 'names'",
    "names: [cat": "not valid YAML",
    "- names": "expected a JSON object",
    "names: [cat]\nkpt_shape: [17, 4]": "kpt_shape must be the number of keypoints and 2 or 3",
    "names: [cat]\nkpt_shape: 17": "kpt_shape must be a list",
    "names: [cat]\ntrain: 3": "train must be a path or a list of paths",
    "names: !!python/object/apply:os.system [ls]": "not valid YAML",
}


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_a_malformed_description_is_an_error_and_executes_nothing(tmp_path: Path, text: str):
    root = ultralytics(tmp_path)
    (root / "data.yaml").write_text(text)
    with pytest.raises(AnnotationError, match=DESCRIPTIONS[text]) as caught:
        read_scenes(root, ReadOptions(split="val"))
    assert caught.value.file == root / "data.yaml"
