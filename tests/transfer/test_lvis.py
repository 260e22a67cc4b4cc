"""Reading LVIS, and its metric against the official package where that is installed."""

import copy
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from moco.data.sources.images import DataError
from moco.transfer.masks import rle_dict
from moco.transfer.metrics.lvis import lvis_scores
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes
from tests.transfer.sample_coco import detections, random_results, random_truth
from tests.transfer.sample_scenes import objects, scene_set
from tests.transfer.sample_voc import picture


def content() -> dict[str, Any]:
    """As v1: no names of files, but addresses; 3 classes."""
    url = "http://images.cocodataset.org"
    return {
        "images": [
            {"id": 391895, "width": 50, "height": 40, "coco_url": f"{url}/train2017/000000391895.jpg",
             "neg_category_ids": [30], "not_exhaustive_category_ids": []},
            {"id": 139, "width": 50, "height": 40, "coco_url": f"{url}/val2017/000000000139.jpg",
             "neg_category_ids": [], "not_exhaustive_category_ids": [7, 2]},
        ],
        "annotations": [{"id": 1, "image_id": 139, "category_id": 7, "bbox": [1, 2, 10, 10], "area": 50.0,
                         "segmentation": [[1, 2, 11, 2, 1, 12]]}],
        "categories": [
            {"id": number, "name": name, "synset": f"{name}.n.01", "synonyms": [name], "frequency": frequency}
            for number, name, frequency in ((30, "wok", "r"), (2, "alligator", "c"), (7, "apple", "f"))
        ],
    }  # fmt: skip


def write(root: Path, file: dict[str, Any], name: str = "lvis_v1_val.json") -> Path:
    for split, number in (("train2017", 391895), ("val2017", 139)):
        picture(root / split / f"{number:012d}.jpg")
    (root / name).write_text(json.dumps(file))
    return root / name


def test_classes_have_frequencies_and_images_the_classes_that_are_absent_or_incomplete(tmp_path: Path):
    scenes = read_scenes(write(tmp_path, content()))
    assert scenes.classes == ("alligator", "apple", "wok")
    assert scenes.category_ids == (2, 7, 30)
    assert scenes.frequencies == ("c", "f", "r")
    first, second = scenes.scenes
    assert (first.id, first.negative, first.not_exhaustive) == (139, (), (1, 0))
    assert (second.id, second.negative, second.not_exhaustive) == (391895, (2,), ())
    assert [scene.path.parent.name for scene in scenes.scenes] == ["val2017", "train2017"]
    assert first.objects.masks is not None


def test_v05_names_images_after_coco_2014_of_which_the_last_16_characters_count(tmp_path: Path):
    file = content()
    for image in file["images"]:
        image["file_name"] = f"COCO_val2014_{image['id']:012d}.jpg"
        del image["coco_url"]
    write(tmp_path, file, "lvis_v0.5_val.json")
    for image in file["images"]:
        picture(tmp_path / "images" / f"{image['id']:012d}.jpg")
    scenes = read_scenes(tmp_path / "lvis_v0.5_val.json")
    assert [scene.path.name for scene in scenes.scenes] == ["000000000139.jpg", "000000391895.jpg"]


def change(where: str, **values: Any) -> Any:
    return lambda file: file[where][0].update(values)


MALFORMED = {
    "negative unknown": (
        change("images", neg_category_ids=[31]),
        "image 391895: neg_category_ids 31: there is no category",
    ),
    "negative text": (change("images", neg_category_ids="30"), "neg_category_ids must be a list, got '30'"),
    "negative of null": (
        change("images", neg_category_ids=[None]),
        "neg_category_ids must be a list of finite numbers",
    ),
    "incomplete missing": (change("images", not_exhaustive_category_ids=None), "has no 'not_exhaustive_category_ids'"),
    "frequency": (change("categories", frequency="x"), "category 30: frequency must be one of r, c, f, got 'x'"),
    "frequency missing": (change("categories", frequency=None), "category 30: has no 'frequency'"),
    "url": (change("images", coco_url="http://x/y.jpg"), r"image 391895: there is no file x/y\.jpg"),
    "url a number": (change("images", coco_url=3), "image 391895: coco_url must be text, got 3"),
    "category": (
        change("annotations", category_id=9),
        "annotation 1: category_id 9: there is no category",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_an_error_that_names_file_and_entry(tmp_path: Path, case: str):
    damage, message = MALFORMED[case]
    file = copy.deepcopy(content())
    damage(file)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_scenes(write(tmp_path, file), format="lvis")
    assert caught.value.file == tmp_path / "lvis_v1_val.json"


def random_lvis(rng: np.random.Generator) -> dict[str, Any]:
    """Random truth with polygons only, and classes that are absent or incomplete in each image."""
    truth = random_truth(rng)
    for one in truth["annotations"]:
        one.pop("iscrowd")
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    for category, frequency in zip(truth["categories"], "rcf", strict=True):
        category.pop("keypoints")
        category["frequency"] = frequency
    for image in truth["images"]:
        present = {one["category_id"] for one in truth["annotations"] if one["image_id"] == image["id"]}
        absent = sorted({2, 3, 17} - present)
        image["neg_category_ids"] = [number for number in absent if rng.random() < 0.5]
        image["not_exhaustive_category_ids"] = [number for number in sorted(present) if rng.random() < 0.3]
    return truth


def official(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package lvis 0.5.3, which needs a drawing library and a name that numpy no longer has."""
    monkeypatch.setitem(sys.modules, "cv2", ModuleType("cv2"))
    monkeypatch.setattr(np, "float", float, raising=False)
    return pytest.importorskip("lvis")


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_scores_are_those_of_the_official_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any):
    lvis = official(monkeypatch)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = random_lvis(rng)
        results = random_results(rng, truth)
        file = tmp_path / "annotations" / "lvis.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(truth))
        for image in truth["images"]:
            (tmp_path / image["file_name"][-16:]).touch()
        scenes = read_scenes(file)
        found = [detections(results, int(scene.id), scenes.category_ids) for scene in scenes.scenes]
        written = [{key: one[key] for key in ("image_id", "category_id", "score")} for one in results]
        for entry, one in zip(written, results, strict=True):
            mask = one["mask"]
            content = (
                {"segmentation": rle_dict(mask, mask.height, mask.width)} if kind == "segm" else {"bbox": one["bbox"]}
            )
            entry.update(content)
        evaluation = lvis.LVISEval(lvis.LVIS(str(file)), written, kind)
        evaluation.run()
        expected = evaluation.get_results()
        stats = lvis_scores(scenes, found, kind=kind).stats()
        for name, value in stats.items():
            wanted = expected["AR@300" if name == "AR300" else name]
            assert np.isnan(value) if wanted == -1 else abs(value - wanted) <= 1e-12, (seed, name)


def test_a_class_that_is_neither_present_nor_absent_does_not_count(tmp_path: Path):
    scenes = read_scenes(write(tmp_path, content()))
    truth = [{"image_id": 139, "category_id": 7, "bbox": [1, 2, 10, 10]}]
    beside = [{"image_id": 139, "category_id": 30, "bbox": [20, 20, 5, 5]}]  # unknown there
    false = [{"image_id": 391895, "category_id": 30, "bbox": [20, 20, 5, 5]}]  # known to be absent, but without objects
    more = {"score": 0.9, "keypoints": [0] * 51, "mask": ()}
    for results, ap in ((truth, 1), (truth + beside + false, 1), (beside, 0)):
        found = [
            detections([{**one, **more} for one in results], int(s.id), scenes.category_ids) for s in scenes.scenes
        ]
        stats = lvis_scores(scenes, found, kind="bbox").stats()
        assert stats["AP"] == stats["APf"] == pytest.approx(ap)
        assert np.isnan(stats["APr"])


def test_scenes_of_other_data_sets_are_an_error():
    scenes = scene_set("a", [objects([[0, 0, 9, 9]], [0])])
    with pytest.raises(DataError, match="the classes have no frequencies"):
        lvis_scores(scenes, [detections([], 0, (1,))], kind="bbox")
