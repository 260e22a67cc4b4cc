"""Reading a class for each pixel, and the mean intersection over union."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from moco.data.sources.images import DataError
from moco.transfer.metrics.miou import Confusion
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_semantic
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.readers.voc_semantic import palette
from tests.transfer.sample_voc import LABELS, picture, voc


def test_voc_has_21_classes_in_palette_images_and_255_is_ignored(tmp_path: Path):
    voc(tmp_path)
    scenes = read_semantic(tmp_path, ReadOptions(split="train"))
    assert (len(scenes.classes), scenes.classes[0], scenes.classes[15]) == (21, "background", "person")
    assert [scene.id for scene in scenes.scenes] == ["2007_000033", "2007_000032"]
    assert scenes.read_labels(0).tolist() == LABELS.tolist()
    assert scenes.read_labels(0).dtype == np.uint8


def test_trainaug_is_read_from_its_own_folder(tmp_path: Path):
    year = voc(tmp_path, split="trainaug")
    voc(tmp_path, split="val")
    for name in ("2007_000033", "2007_000032"):
        (year / "SegmentationClassAug").mkdir(exist_ok=True)
        Image.fromarray(np.full((2, 3), 7, dtype=np.uint8)).save(year / "SegmentationClassAug" / f"{name}.png")
    assert read_semantic(tmp_path, ReadOptions(split="trainaug")).read_labels(0).tolist() == [[7] * 3] * 2
    assert read_semantic(tmp_path, ReadOptions(split="2012_val")).read_labels(0).tolist() == LABELS.tolist()


def test_the_palette_is_that_of_voc():
    colours = {value: colour for colour, value in palette(22).items()}
    assert (colours[0], colours[1], colours[8], colours[15], colours[20]) == (
        (0, 0, 0), (128, 0, 0), (64, 0, 0), (192, 128, 128), (0, 64, 128),
    )  # fmt: skip


def test_colours_of_cvat_are_read_by_its_labelmap(tmp_path: Path):
    for folder in ("ImageSets/Segmentation", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ntree:10,200,3::\n")
    (tmp_path / "ImageSets" / "Segmentation" / "default.txt").write_text("a\n")
    picture(tmp_path / "JPEGImages" / "a.jpg", 2, 1)
    file = tmp_path / "SegmentationClass" / "a.png"
    Image.fromarray(np.array([[[10, 200, 3], [0, 0, 0]]], dtype=np.uint8)).save(file)
    scenes = read_semantic(tmp_path)
    assert scenes.classes == ("background", "tree")
    assert scenes.read_labels(0).tolist() == [[1, 0]]
    Image.fromarray(np.array([[[10, 200, 4], [0, 0, 0]]], dtype=np.uint8)).save(file)
    with pytest.raises(AnnotationError, match=r"a\.png, a: has pixels with a colour that is no class: \(10, 200, 4\)"):
        scenes.read_labels(0)
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ntree:10,200::\n")
    with pytest.raises(AnnotationError, match=r"labelmap\.txt, line 2: expected name:red,green,blue"):
        read_semantic(tmp_path)


def folders(root: Path) -> Path:
    (root / "classes.txt").write_text("ground\ntree\n")
    for name in ("b", "plot 1/a"):
        picture(root / "images" / "train" / f"{name}.jpg", 3, 2)
        path = root / "masks" / "train" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([[0, 1, 1], [255, 0, 1]], dtype=np.uint8)).save(path)
    return root


def test_two_folders_with_the_same_names_are_pairs(tmp_path: Path):
    scenes = read_semantic(folders(tmp_path), ReadOptions(split="train"))
    assert scenes.classes == ("ground", "tree")
    assert [scene.id for scene in scenes.scenes] == ["b", "plot 1/a"]
    assert scenes.read_labels(1).tolist() == [[0, 1, 1], [255, 0, 1]]
    assert [scene.id for scene in read_semantic(tmp_path).scenes] == ["train/b", "train/plot 1/a"]


def test_an_invalid_mask_is_an_error_that_names_its_file(tmp_path: Path):
    scenes = read_semantic(folders(tmp_path), ReadOptions(split="train"))
    file = scenes.scenes[0].labels
    for values, message in (
        (np.array([[0, 1, 2], [0, 0, 9]], dtype=np.uint8), r"pixels with values that are no class: \[2, 9\]"),
        (np.zeros((3, 2), dtype=np.uint8), "has 2 x 3 pixels, its image 3 x 2"),
        (np.zeros((2, 3, 3), dtype=np.uint8), "expected one value from 0 to 255 for each pixel, got mode RGB"),
        (np.full((2, 3), 300, dtype=np.uint16), "expected one value from 0 to 255"),
    ):
        Image.fromarray(values).save(file)
        with pytest.raises(AnnotationError, match=message) as caught:
            scenes.read_labels(0)
        assert caught.value.file == file
    file.write_bytes(b"no image")
    with pytest.raises(AnnotationError, match="cannot be read"):
        scenes.read_labels(0)
    file.unlink()
    with pytest.raises(AnnotationError, match=r"there is no b\.png in "):
        read_semantic(tmp_path, ReadOptions(split="train"))
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match="expected the names of the classes"):
        read_semantic(tmp_path, ReadOptions(split="train"))


def test_an_image_that_lies_on_its_side_has_the_size_that_it_is_decoded_to(tmp_path: Path):
    scenes = read_semantic(folders(tmp_path), ReadOptions(split="train"))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.zeros((3, 2, 3), dtype=np.uint8)).save(scenes.scenes[0].path, exif=exif)  # upright: 3 x 2
    assert scenes.read_labels(0).shape == (2, 3)


def test_the_scores_are_those_of_a_confusion_matrix_by_hand():
    confusion = Confusion(("a", "b", "c", "d"))
    confusion.add(np.array([[0, 0, 1], [1, 1, 255]], dtype=np.uint8), np.array([[0, 1, 1], [1, 2, 2]]))
    assert confusion.counts.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    scores = confusion.scores()
    assert scores.iou[:3] == pytest.approx([1 / 2, 2 / 4, 0])  # c was predicted and is nowhere
    assert np.isnan(scores.iou[3])
    assert scores.miou == pytest.approx(1 / 3)
    assert scores.accuracy[:2] == pytest.approx([1 / 2, 2 / 3])
    assert scores.pixel_accuracy == pytest.approx(3 / 5)


def test_the_scores_are_those_of_scikit_learn_over_all_images():
    from sklearn.metrics import jaccard_score

    rng = np.random.default_rng(0)
    confusion = Confusion(tuple("abcde"))
    pairs = [(rng.integers(0, 5, (9, 11)).astype(np.uint8), rng.integers(0, 5, (9, 11))) for _ in range(7)]
    for truth, predicted in pairs:
        confusion.add(truth, predicted)
    truth, predicted = (np.concatenate([pair[part].reshape(-1) for pair in pairs]) for part in (0, 1))
    expected = jaccard_score(truth, predicted, average=None)
    assert confusion.scores().iou == pytest.approx(np.asarray(expected), abs=1e-12)


def test_predictions_that_do_not_fit_are_errors():
    confusion = Confusion(("a", "b"))
    with pytest.raises(DataError, match=r"has \[2, 2\] pixels .* labels \[1, 2\]"):
        confusion.add(np.zeros((1, 2), dtype=np.uint8), np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(DataError, match=r"a predicted class 2; expected 0\.\.1"):
        confusion.add(np.zeros((1, 2), dtype=np.uint8), np.full((1, 2), 2))
    assert np.isnan(confusion.scores().miou)
