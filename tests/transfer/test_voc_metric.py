"""VOC's average precision, against what Detectron2's evaluator gave and against its definition."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from moco.data.sources.images import DataError
from moco.transfer.metrics.voc import average_precision, iou, voc_scores
from moco.transfer.predicted_objects import Detections, no_detections
from tests.transfer.sample_scenes import objects, scene_set

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "detection" / "voc_eval.json").read_text())


def recorded_set(number: int):
    """Scenes and detections of a recorded set; ground truth there is counted from 1."""
    classes = RECORDED["classes"]
    every, found = [], []
    for image in RECORDED["sets"][number]["images"].values():
        boxes = np.array([one["bndbox"] for one in image["gt"]], dtype=np.float64).reshape(-1, 4) - [1, 1, 0, 0]
        labels = [classes.index(one["name"]) for one in image["gt"]]
        every.append(objects(boxes, labels, difficult=[one["difficult"] for one in image["gt"]]))
        found.append(
            Detections(
                np.array([one["box"] for one in image["det"]], dtype=np.float32).reshape(-1, 4),
                np.array([one["class_index"] for one in image["det"]], dtype=np.int64),
                np.array([one["score"] for one in image["det"]], dtype=np.float64),
            )
        )
    return scene_set(classes, every), found


def close(one: float, other: float | None) -> bool:
    return math.isnan(one) if other is None else abs(one - other) <= 1e-9


@pytest.mark.parametrize("number", range(60))
def test_each_recorded_set_gets_the_numbers_of_detectron2(number: int):
    scenes, found = recorded_set(number)
    result = RECORDED["sets"][number]["result"]
    for rule, year in (("07", "2007"), ("area", "2012")):
        scores = voc_scores(scenes, found, rule=rule, detectron2_rounding=True)
        expected = result.get(f"{year}_stable", result[year])
        for name, row in zip(scores.classes, 100 * scores.ap, strict=True):
            assert all(map(close, row, expected["ap_per_class_and_iou"][name])), name
        means = 100 * scores.ap.mean(0)
        assert close(float(means.mean()), expected["AP"])
        assert close(float(means[0]), expected["AP50"])
        assert close(float(means[5]), expected["AP75"])


def by_definition(scenes, found, label: int, threshold: float) -> tuple[list[float], list[float]]:
    """Recall and precision of a class, one detection after the other, as the challenge's paper describes it."""
    every = [
        (-float(score), number, index)
        for number, one in enumerate(found)
        for index, score in enumerate(one.scores)
        if one.labels[index] == label
    ]
    every.sort(key=lambda entry: entry[0])  # stable
    countable = sum(int((~one.objects.difficult[one.objects.labels == label]).sum()) for one in scenes.scenes)
    taken: set[tuple[int, int]] = set()
    true, false, recall, precision = 0, 0, [], []
    for _, number, index in every:
        of_image = scenes.scenes[number].objects
        best, object_of_best = -1.0, -1
        for place, (box, kind) in enumerate(zip(of_image.boxes, of_image.labels, strict=True)):
            overlap = pair_overlap(found[number].boxes[index], box) if kind == label else -1.0
            if overlap > best:
                best, object_of_best = overlap, place
        if best > threshold:
            if not of_image.difficult[object_of_best]:
                first = (number, object_of_best) not in taken
                taken.add((number, object_of_best))
                true, false = true + first, false + (not first)
        else:
            false += 1
        recall.append(true / countable if countable else math.nan)
        precision.append(true / (true + false) if true + false else 0.0)
    return recall, precision


def pair_overlap(one, other) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - width * height
    return float(width * height / union)


@pytest.mark.parametrize("block", range(4))
def test_curves_of_100_fresh_sets_are_those_of_the_definition(block: int):
    for seed in range(25 * block, 25 * block + 25):
        rng = np.random.default_rng(1000 + seed)
        every, found = [], []
        for _ in range(int(rng.integers(1, 9))):
            n, p = int(rng.integers(0, 9)), int(rng.integers(0, 20))
            corners = rng.integers(0, 90, (n, 2)).astype(float)
            boxes = np.concatenate([corners, corners + rng.integers(1, 60, (n, 2))], axis=1)
            every.append(objects(boxes, rng.integers(0, 3, n), difficult=rng.random(n) < 0.2))
            near = boxes[rng.integers(0, n, p)] if n else np.tile([0.0, 0, 9, 9], (p, 1))
            moved = near + rng.integers(-3, 4, (p, 1)) * rng.choice([0, 1, 4], (p, 1))
            found.append(Detections(moved, rng.integers(0, 3, p), np.round(rng.random(p), 1)))
        scenes = scene_set("abc", every)
        for threshold in (0.5, 0.75):
            scores = voc_scores(scenes, found, rule="area", thresholds=[threshold])
            for label in range(3):
                recall, precision = by_definition(scenes, found, label, threshold)
                assert scores.curves[label][0] == pytest.approx(np.array(recall), abs=1e-12, nan_ok=True)
                assert scores.curves[label][1] == pytest.approx(np.array(precision), abs=1e-12)


def test_a_perfect_detector_has_ap_1_and_the_means_leave_out_a_class_without_objects():
    scenes = scene_set("abc", [objects([[0, 0, 10, 10], [20, 20, 30, 40]], [0, 1])])
    found = [Detections(scenes.scenes[0].objects.boxes, np.array([0, 1]), np.array([0.9, 0.8]))]
    for rule in ("07", "area"):
        scores = voc_scores(scenes, found, rule=rule)
        assert scores.means() == pytest.approx(np.ones(10), abs=1e-12)
        assert np.isnan(scores.ap[2]).all()


def test_half_of_the_objects_found_gives_six_of_eleven_points_and_half_of_the_area():
    scenes = scene_set("a", [objects([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])])
    found = [Detections(np.array([[0.0, 0, 10, 10]]), np.array([0]), np.array([0.9]))]
    assert voc_scores(scenes, found, rule="07").ap[0, 0] == pytest.approx(6 / 11)  # recall 0, 0.1, ..., 0.5
    assert voc_scores(scenes, found, rule="area").ap[0, 0] == pytest.approx(1 / 2)


def test_a_second_detection_is_false_and_one_of_a_difficult_object_is_ignored():
    box = [0.0, 0, 10, 10]
    scenes = scene_set("a", [objects([box, [50, 50, 60, 60]], [0, 0], difficult=[False, True])])
    boxes = np.array([[50.0, 50, 60, 60], box, box])
    scores = voc_scores(
        scenes, [Detections(boxes, np.zeros(3, dtype=np.int64), np.array([0.9, 0.8, 0.7]))], rule="area"
    )
    recall, precision = scores.curves[0]
    assert recall.tolist() == [0, 1, 1]
    assert precision == pytest.approx([0, 1, 1 / 2])


def test_an_overlap_of_exactly_the_threshold_does_not_count():
    scenes = scene_set("a", [objects([[0, 0, 10, 10]], [0])])
    found = [Detections(np.array([[0.0, 0, 10, 5]]), np.array([0]), np.array([1.0]))]
    assert voc_scores(scenes, found, rule="area", thresholds=[0.5, 0.49]).ap[0].tolist() == [0, 1]


def test_nothing_found_is_0_and_a_missing_result_is_an_error():
    scenes = scene_set("a", [objects([[0, 0, 10, 10]], [0])])
    assert voc_scores(scenes, [no_detections()], rule="07").means().tolist() == [0] * 10
    with pytest.raises(DataError, match="0 results for 1 images"):
        voc_scores(scenes, [], rule="07")


def test_counting_pixels_from_1_gives_the_same_overlap_as_continuous_boxes():
    one, other = np.array([[3.0, 4, 9, 12]]), np.array([[5.0, 1, 11, 8]])
    from_1 = [boxes + np.array([1, 1, 0, 0]) for boxes in (one, other)]
    assert iou(*from_1, extra=1) == iou(one, other)
    assert iou(one, other)[0, 0] == pytest.approx(16 / (48 + 42 - 16))


def test_the_envelope_of_the_curve_is_what_has_the_area():
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    assert average_precision(recall, precision, "area") == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
