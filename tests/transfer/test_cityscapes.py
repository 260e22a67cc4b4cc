"""Reading Cityscapes, and its metric against the official scripts where they are installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moco.data.sources.images import DataError
from moco.transfer.masks import bitmap, bitmap_of_rle, rle_of_bitmap
from moco.transfer.metrics.cityscapes import cityscapes_scores
from moco.transfer.metrics.coco import coco_scores
from moco.transfer.predicted_objects import Detections, no_detections
from moco.transfer.readers.cityscapes import OBJECT_NAMES
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes, read_semantic
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.scenes import SceneSet
from tests.transfer.sample_cityscapes import add, random_ids, write_png

VAL = ReadOptions(split="val")


def small(height: int = 4, width: int = 6) -> np.ndarray:
    """A road with a car, a group of persons and void."""
    ids = np.full((height, width), 7)
    ids[0:2, 1:3] = 26003
    ids[3, 4:6] = 24
    ids[0, 5] = 0
    return ids


def test_objects_have_masks_boxes_and_areas_and_groups_are_crowds(tmp_path: Path):
    add(tmp_path, "ulm", 1, small())
    scenes = read_scenes(tmp_path, VAL)
    assert scenes.classes == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert scenes.category_ids == (24, 25, 26, 27, 28, 31, 32, 33)
    scene = scenes.scenes[0]
    objects = scene.objects
    assert [scenes.classes[label] for label in objects.labels] == ["person", "car"]
    assert objects.crowd.tolist() == [True, False]
    assert objects.boxes.tolist() == [[4, 3, 6, 4], [1, 0, 3, 2]]
    assert objects.areas.tolist() == [2, 4]
    assert objects.masks is not None
    assert objects.masks[1] is not None
    assert (bitmap(objects.masks[1], 4, 6) == (small() == 26003)).all()
    assert scene.ignored is not None
    assert (bitmap_of_rle(scene.ignored) == (small() == 0)).all()


def test_masks_and_boxes_are_those_of_the_pixels_of_each_value(tmp_path: Path):
    rng = np.random.default_rng(0)
    for number in range(10):
        add(tmp_path, "ulm", number, random_ids(rng, 40, 30))
    for scene in read_scenes(tmp_path, VAL).scenes:
        ids = np.asarray(Image.open(tmp_path / "gtFine" / "val" / "ulm" / f"{scene.id}_gtFine_instanceIds.png"))
        masks = scene.objects.masks
        assert masks is not None
        for index, name in enumerate(scene.objects.ids):
            drawn = ids == int(name.split()[-1])
            mask = masks[index]
            assert mask is not None
            assert (bitmap(mask, 30, 40) == drawn).all()
            rows, columns = np.nonzero(drawn)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert scene.objects.boxes[index].tolist() == expected


def test_scenes_are_ordered_by_city_and_name_and_no_archive_is_opened(tmp_path: Path):
    for city, number in (("ulm", 2), ("bonn", 5), ("ulm", 1)):
        add(tmp_path, city, number, small())
    (tmp_path / "gtFine_trainvaltest.zip").write_bytes(b"PK\3\4 no archive")
    names = ["bonn_000005_000019", "ulm_000001_000019", "ulm_000002_000019"]
    assert [scene.id for scene in read_scenes(tmp_path, VAL).scenes] == names
    assert [scene.id for scene in read_semantic(tmp_path, VAL).scenes] == names


def test_pixels_have_19_classes_and_the_rest_is_ignored(tmp_path: Path):
    add(tmp_path, "ulm", 1, small())
    scenes = read_semantic(tmp_path, VAL)
    assert len(scenes.classes) == 19
    assert (scenes.classes[0], scenes.classes[11], scenes.classes[13], scenes.classes[18]) == (
        "road", "person", "car", "bicycle",
    )  # fmt: skip
    labels = scenes.read_labels(0)
    assert labels[:, :3].tolist() == [[0, 13, 13], [0, 13, 13], [0, 0, 0], [0, 0, 0]]
    assert labels[3, 4:].tolist() == [11, 11]
    assert labels[0, 5] == 255


def test_the_labels_are_the_train_ids_of_the_official_table(tmp_path: Path):
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    table = read_semantic_table(tmp_path)
    for label in labels:
        if label.id >= 0:
            assert table[label.id] == label.trainId, label.name
    assert [label.name for label in labels if label.hasInstances and not label.ignoreInEval] == [*OBJECT_NAMES.values()]


def read_semantic_table(folder: Path) -> np.ndarray:
    add(folder, "ulm", 1, small())
    return read_semantic(folder, VAL).table


def test_missing_splits_and_invalid_pixels_are_errors_that_name_the_file(tmp_path: Path):
    folder = add(tmp_path, "ulm", 1, small())
    file = folder / "ulm_000001_000019_gtFine_instanceIds.png"
    with pytest.raises(DataError, match="splits val: expected one of them, got none"):
        read_scenes(tmp_path)
    for values, message in (
        (np.full((4, 6), 34), "pixels of the value 34, which Cityscapes does not have"),
        (np.full((4, 6), 40001), "pixels of the value 40001"),
        (np.full((4, 6, 3), 7), "expected one whole number for each pixel"),
    ):
        write_png(file, values)
        with pytest.raises(AnnotationError, match=message) as caught:
            read_scenes(tmp_path, VAL)
        assert caught.value.file == file
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_scenes(tmp_path, VAL)
    file.unlink()
    with pytest.raises(AnnotationError, match="there is no such file"):
        read_scenes(tmp_path, VAL)


def random_predictions(rng: np.random.Generator, ids: np.ndarray) -> Detections:
    """Objects moved by some pixels, groups, void and anything else, with equal scores among them."""
    masks, labels = [], []
    kinds = [24, 26, 33]
    values = [value for value in np.unique(ids).tolist() if value >= 1000 or value in (24, 26, 33, 29)]
    for _ in range(int(rng.integers(0, 9))):
        drawn = np.zeros(ids.shape, dtype=bool)
        if values and rng.random() < 0.8:
            value = int(rng.choice(values))
            drawn = np.roll(ids == value, (int(rng.integers(-3, 4)), int(rng.integers(-3, 4))), (0, 1))
            kind = value // 1000 if value >= 1000 else value
        else:
            y, x = int(rng.integers(0, ids.shape[0])), int(rng.integers(0, ids.shape[1]))
            drawn[y : y + 12, x : x + 15] = True
            kind = 26
        masks.append(rle_of_bitmap(drawn))
        labels.append([*OBJECT_NAMES].index(kind if kind in kinds and rng.random() < 0.9 else int(rng.choice(kinds))))
    n = len(masks)
    scores = np.round(rng.random(n), 1)
    return Detections(np.zeros((n, 4)), np.array(labels, dtype=np.int64), scores, tuple(masks))


def test_the_scores_are_those_of_the_official_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # which numpy 2.4 no longer has
    official = pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    compared = 0
    for seed in range(40):
        rng, root = np.random.default_rng(seed), tmp_path / str(seed)
        every = [random_ids(rng, *rng.integers(30, 70, 2).tolist()) for _ in range(int(rng.integers(1, 4)))]
        for number, ids in enumerate(every):
            add(root, "ulm", number, ids)
        scenes = read_scenes(root, VAL)
        found = [random_predictions(rng, ids) for ids in every]
        expected = of_scripts(official, root, scenes, found)
        if expected is None:
            continue
        ours = cityscapes_scores(scenes, found).ap_by_threshold
        assert np.allclose(ours, expected, rtol=0, atol=1e-12, equal_nan=True), seed
        compared += int((ours > 0).sum())
    assert compared > 100


def of_scripts(official: Any, root: Path, scenes: SceneSet, found: list[Detections]) -> np.ndarray | None:
    """AP by class and threshold, from files as the scripts read them."""
    args = official.args
    official.setInstanceLabels(args)
    matches = {}
    for scene, one in zip(scenes.scenes, found, strict=True):
        truth = root / "gtFine" / "val" / "ulm" / f"{scene.id}_gtFine_instanceIds.png"
        instances = official.instances2dict([str(truth)])[str(truth)]
        predictions = {}
        for number, mask in enumerate(one.masks or ()):
            file = root / "results" / f"{scene.id}_{number}.png"
            write_png(file, bitmap(mask, mask.height, mask.width) * 255)  # pyright: ignore[reportAttributeAccessIssue]
            label = [*OBJECT_NAMES][one.labels[number]]
            predictions[str(file)] = {"labelID": label, "conf": float(one.scores[number])}
        pair = official.assignGt2Preds(instances, np.asarray(Image.open(truth)), predictions, args)
        matches[scene.id] = {"groundTruth": pair[0], "prediction": pair[1]}
    try:
        return official.evaluateMatches(matches, args)[0]
    except IndexError:  # it cannot score a class of which every prediction lies on what does not count
        return None


def large() -> np.ndarray:
    ids = np.full((40, 60), 7)
    ids[0:20, 0:20] = 26001
    ids[20:40, 0:20] = 26002
    ids[0:5, 50:60] = 26003  # 50 pixels: too small to count
    ids[30:40, 40:60] = 26  # a group
    ids[0:10, 30:40] = 0
    return ids


def of(*drawn: tuple[slice, slice], scores: list[float]) -> Detections:
    masks = []
    for where in drawn:
        mask = np.zeros((40, 60), dtype=bool)
        mask[where] = True
        masks.append(rle_of_bitmap(mask))
    n = len(masks)
    return Detections(np.zeros((n, 4)), np.full(n, 2), np.array(scores), tuple(masks))


FIRST, SECOND = np.s_[0:20, 0:20], np.s_[20:40, 0:20]


def test_every_object_found_gives_1_and_what_lies_on_void_groups_or_small_objects_does_not_count(tmp_path: Path):
    add(tmp_path, "ulm", 1, large())
    scenes = read_scenes(tmp_path, VAL)
    assert cityscapes_scores(scenes, [of(FIRST, SECOND, scores=[0.9, 0.8])]).ap == pytest.approx(1)
    beside = of(FIRST, SECOND, np.s_[30:40, 40:60], np.s_[0:5, 50:60], np.s_[0:10, 30:40], scores=[0.9, 0.8, 1, 1, 1])
    assert cityscapes_scores(scenes, [beside]).ap == pytest.approx(1)


def test_ap_is_right_for_one_found_object_of_two_and_for_none(tmp_path: Path):
    add(tmp_path, "ulm", 1, large())
    scenes = read_scenes(tmp_path, VAL)
    # points (recall 1/2, precision 1) and (0, 1): widths (1/2 - 0) / 2 and (1/2 - 0) / 2
    assert cityscapes_scores(scenes, [of(FIRST, scores=[0.9])]).ap50 == pytest.approx(1 / 2)
    # a false one above it: (1/2, 1/2), (0, 0), (0, 1)
    wrong = of(FIRST, np.s_[20:30, 30:60], scores=[0.8, 0.9])
    assert cityscapes_scores(scenes, [wrong]).ap50 == pytest.approx(1 / 4 * 1 / 2)
    assert cityscapes_scores(scenes, [no_detections()]).ap == 0


def test_coco_scores_of_its_objects_can_be_computed_too(tmp_path: Path):
    add(tmp_path, "ulm", 1, large())
    scenes = read_scenes(tmp_path, VAL)
    found = of(FIRST, SECOND, np.s_[0:5, 50:60], scores=[0.9, 0.8, 0.7])
    assert coco_scores(scenes, [found], kind="segm").stats()["AP"] == pytest.approx(1)
