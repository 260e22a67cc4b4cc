"""The transfer demo: its scenes are what their annotations say, and the parts share no garment and no photograph."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from moco.cli import app
from moco.data.sources.demo import demo_data
from moco.data.sources.images import DataError
from moco.transfer.demo import demo as module
from moco.transfer.demo.scenes import SCENE_SIDE, SceneCounts, make_scenes
from moco.transfer.masks import bitmap
from moco.transfer.readers.formats import read_scenes, read_semantic
from moco.transfer.readers.shared import ReadOptions

COUNTS = SceneCounts(train=8, test=8)


@pytest.fixture(scope="module")
def garments(tmp_path_factory):
    return demo_data(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def scenes(garments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, garments, COUNTS, photos=None)
    return folder


def test_boxes_masks_and_pixels_say_the_same(scenes):
    objects = read_scenes(scenes / "train.json")
    pixels = read_semantic(scenes, ReadOptions(split="train"))
    assert pixels.classes == ("background", *objects.classes)
    assert len(objects) == len(pixels) == COUNTS.train
    for index, scene in enumerate(objects.scenes):
        labels = np.zeros((SCENE_SIDE, SCENE_SIDE), dtype=np.uint8)
        assert scene.objects.masks is not None
        for mask, label, box in zip(scene.objects.masks, scene.objects.labels, scene.objects.boxes, strict=True):
            inside = bitmap(mask, SCENE_SIDE, SCENE_SIDE)
            assert not labels[inside].any()  # garments do not overlap
            labels[inside] = label + 1
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.array_equal(pixels.read_labels(index), labels)


def test_scenes_are_a_function_of_part_and_number(garments, scenes, tmp_path):
    make_scenes(tmp_path, garments, SceneCounts(train=3, test=1), photos=None)
    for name in ("images/train/00002.png", "masks/train/00001.png", "images/test/00000.png"):
        assert (tmp_path / name).read_bytes() == (scenes / name).read_bytes()


def test_scenes_that_are_there_are_not_made_again(garments, scenes):
    file = scenes / "images" / "train" / "00000.png"
    before = file.stat().st_ino
    make_scenes(scenes, garments, COUNTS, photos=None)
    assert file.stat().st_ino == before


def test_photographs_for_training_are_not_those_for_the_test(garments, tmp_path):
    """Photographs of one grey each: the corners of the scenes show which ones were used."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(8):
        Image.new("RGB", (300, 200), (20 + 20 * number,) * 3).save(photos / f"{number}.png")
    make_scenes(tmp_path / "scenes", garments, COUNTS, photos=photos)
    used = {}
    for part in ("images/train", "images/test"):
        pictures = [np.asarray(Image.open(path)) for path in (tmp_path / "scenes" / part).iterdir()]
        used[part] = {int(value) for one in pictures for value in one[[0, 0, -1, -1], [0, -1, 0, -1], 0]}
    greys = {20 + 20 * number for number in range(8)}
    assert used["images/test"] & greys <= {140, 160}
    assert not used["images/train"] & {140, 160}


def test_one_photograph_is_too_few(garments, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 200)).save(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError, match="at least 2 photographs"):
        make_scenes(tmp_path / "scenes", garments, COUNTS, photos=tmp_path / "photos")


def test_the_demo_compares_the_same_starts_on_both_tasks(scenes, tmp_path, monkeypatch):
    calls = []

    class Table:
        rows, reference = (), "random"

        def to_dict(self):
            return {}

    def transfer(task, data, out, **options):
        calls.append((task, options))
        return Table()

    monkeypatch.setattr(module, "make_scenes", lambda *_, **__: None)
    monkeypatch.setattr(module, "pretrain", lambda *_, **__: None)
    monkeypatch.setattr(module, "transfer", transfer)
    monkeypatch.setattr(module, "find_packaged", lambda name: tmp_path)
    result = CliRunner().invoke(app, ["demo", "transfer", "--out", str(tmp_path / "out"), "--trials", "2", "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) == {"boxes", "masks", "pixels"}
    assert [task for task, _ in calls] == ["instance", "segment"]
    for _, options in calls:
        assert list(options["init"]) == ["random", "moco", "imagenet"]
        assert (options["trials"], options["versus"]) == (2, "random")
