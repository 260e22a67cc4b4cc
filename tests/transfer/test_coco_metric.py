"""COCO's metrics against pycocotools, which reads the same files by itself."""

import copy
import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from moco.data.sources.images import DataError
from moco.transfer.metrics.coco import coco_scores
from moco.transfer.predicted_objects import Detections, no_detections
from moco.transfer.readers.formats import read_scenes
from tests.transfer.sample_coco import detections, random_results, random_truth, write
from tests.transfer.sample_scenes import objects, scene_set

NAMES = {
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"),
}
NAMES["segm"] = NAMES["bbox"]


def of_pycocotools(file: Path, results: list[dict], kind: str) -> dict[str, float]:
    """The 12 or 10 numbers, as the official code computes them from the files."""
    written = []
    for one in results:
        entry = {key: one[key] for key in ("image_id", "category_id", "score")}
        if kind == "segm":
            mask = one["mask"]
            sizes = {"size": [mask.height, mask.width], "counts": mask.runs.tolist()}
            encoded = coco_mask.frPyObjects(sizes, mask.height, mask.width)
            entry["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode()}
        else:
            entry[kind] = one[kind]
        written.append(entry)
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(written)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES[kind], evaluation.stats, strict=True))


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("block", range(10))
def test_200_random_sets_get_the_numbers_of_pycocotools(tmp_path: Path, kind, block: int):
    for seed in range(20 * block, 20 * block + 20):
        rng = np.random.default_rng(seed)
        truth = random_truth(rng)
        results = random_results(rng, truth)
        file = write(tmp_path, truth, images=seed % 20 == 0)
        for image in truth["images"]:
            (tmp_path / "val2017").mkdir(exist_ok=True)
            (tmp_path / "val2017" / image["file_name"]).touch()
        scenes = read_scenes(file)
        found = [detections(results, int(scene.id), scenes.category_ids) for scene in scenes.scenes]
        expected = of_pycocotools(file, results, kind)
        for engine in ("fast", "reference") if seed % 20 == 0 else ("fast",):
            stats = coco_scores(scenes, found, kind=kind, engine=engine).stats()
            assert stats.keys() == expected.keys()
            for name, value in expected.items():
                assert np.isnan(stats[name]) if value == -1 else abs(stats[name] - value) <= 1e-12, (seed, name)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_difficult_object_is_neither_a_hit_nor_a_miss(engine):
    box = [10.0, 10, 50, 50]
    scenes = scene_set("a", [objects([box, [60, 60, 90, 90]], [0, 0], difficult=[True, False])])
    found = [Detections(np.array([[60.0, 60, 90, 90], box]), np.array([0, 0]), np.array([0.5, 0.9]))]
    assert coco_scores(scenes, found, kind="bbox", engine=engine).stats()["AP"] == pytest.approx(1)
    assert coco_scores(scenes, [no_detections()], kind="bbox", engine=engine).stats()["AR100"] == 0


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_an_object_without_a_mask_does_not_count_among_masks(engine):
    triangle = (np.array([10.0, 10, 40, 10, 10, 40]),)
    scenes = scene_set("a", [objects([[10, 10, 40, 40], [60, 60, 90, 90]], [0, 0], masks=(triangle, None))])
    found = [Detections(np.array([[10.0, 10, 40, 40]]), np.array([0]), np.array([0.5]), masks=(triangle,))]
    assert coco_scores(scenes, found, kind="segm", engine=engine).stats()["AP"] == pytest.approx(1)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_classes_without_objects_are_nan_and_left_out_of_the_mean(engine):
    scenes = scene_set("ab", [objects([[10, 10, 50, 50]], [1])])
    found = [Detections(np.array([[10.0, 10, 50, 50], [0, 0, 9, 9]]), np.array([1, 0]), np.array([0.5, 0.9]))]
    scores = coco_scores(scenes, found, kind="bbox", engine=engine)
    assert np.isnan(scores.ap_by_class()["a"])
    assert scores.ap_by_class()["b"] == scores.stats()["AP"] == pytest.approx(1)


def test_without_any_object_every_number_is_nan():
    for kind in NAMES:
        found = [Detections(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0))]
        stats = coco_scores(scene_set("a", [objects([], [])]), found, kind=kind).stats()
        assert tuple(stats) == NAMES[kind]
        assert np.isnan(list(stats.values())).all()


def test_other_numbers_of_keypoints_take_the_mean_deviation_or_the_given_ones():
    points = np.array([[[10.0, 10, 2], [20, 20, 2]]])
    scenes = scene_set("a", [objects([[0, 0, 40, 40]], [0], keypoints=points)])
    off = points + np.array([0.5 + 3, 0.5, 0])
    found = [Detections(np.array([[0.0, 0, 40, 40]]), np.array([0]), np.array([1.0]), keypoints=off)]
    mean = np.mean([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
    oks = (np.exp(-(3**2) / (2 * 1600 * (2 * mean) ** 2)) * 2) / 2
    passed = [threshold for threshold in np.arange(50, 100, 5) / 100 if oks >= threshold]
    assert 0 < len(passed) < 10
    assert coco_scores(scenes, found, kind="keypoints").stats()["AP"] == pytest.approx(len(passed) / 10)
    assert coco_scores(scenes, found, kind="keypoints", sigmas=[1, 1]).stats()["AP"] == 1
    with pytest.raises(DataError, match="3 sigmas for 2 keypoints"):
        coco_scores(scenes, found, kind="keypoints", sigmas=[1, 1, 1])


def test_results_that_do_not_fit_are_errors_that_name_the_image():
    scenes = scene_set("a", [objects([[10, 10, 50, 50]], [0])])
    box, label, score = np.array([[10.0, 10, 50, 50]]), np.array([0]), np.array([0.5])
    with pytest.raises(DataError, match="0 results for 1 images"):
        coco_scores(scenes, [], kind="bbox")
    with pytest.raises(DataError, match=r"image 0 have the class 1; expected 0\.\.0"):
        coco_scores(scenes, [Detections(box, label + 1, score)], kind="bbox")
    with pytest.raises(DataError, match="image 0 have no masks"):
        coco_scores(scenes, [Detections(box, label, score)], kind="segm")
    with pytest.raises(DataError, match="image 0 have numbers that are not finite"):
        coco_scores(scenes, [Detections(box, label, score * np.nan)], kind="bbox")


def test_a_missing_library_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    scenes = scene_set("a", [objects([[10, 10, 50, 50]], [0])])
    with pytest.raises(ImportError, match=r'needs faster_coco_eval: pip install "\.\[transfer\]"'):
        coco_scores(scenes, [no_detections()], kind="bbox")
