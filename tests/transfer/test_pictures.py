"""Pictures of a detector's test, and the choice of the hardest images."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from moco.transfer.detection.pictures import details_of, draw_detections, draw_precision_recall, hardest_scenes
from moco.transfer.metrics.coco import coco_scores
from moco.transfer.predicted_objects import Detections, no_detections
from moco.transfer.readers.formats import read_scenes
from tests.transfer.draw_scenes import make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return read_scenes(make_scenes(tmp_path_factory.mktemp("scenes"), 8, seed=3))


def perfect(scene) -> Detections:
    objects = scene.objects
    return Detections(objects.boxes, objects.labels, np.full(len(objects), 0.9), objects.masks)


def test_the_hardest_images_are_those_with_the_most_errors(scenes):
    found = [perfect(scene) for scene in scenes.scenes]
    wrong = found[2]
    found[2] = replace(wrong, labels=(wrong.labels + 1) % 3)  # each object missed, each detection wrong
    found[5] = replace(found[5], boxes=np.concatenate([found[5].boxes[:1], found[5].boxes[1:] + 1000]))
    chosen = hardest_scenes(scenes, found, most=2)
    expected = [2, 5] if len(scenes.scenes[5].objects) > 1 else [2, 0]
    assert chosen == expected


def test_detections_of_a_low_score_are_no_errors_and_no_hits(scenes):
    found = [replace(perfect(scene), scores=np.full(len(scene.objects), 0.4)) for scene in scenes.scenes]
    found[3] = perfect(scenes.scenes[3])
    assert hardest_scenes(scenes, found, most=len(scenes))[-1] == 3


def test_an_object_is_found_once(scenes):
    """Two detections of one object: 1 - 2 / (1 + 2) = 1/3, as much as of no other image."""
    found = [perfect(scene) for scene in scenes.scenes]
    double = found[4]
    found[4] = Detections(
        np.concatenate([double.boxes, double.boxes]), np.concatenate([double.labels] * 2),
        np.concatenate([double.scores] * 2), double.masks + double.masks,
    )  # fmt: skip
    assert hardest_scenes(scenes, found, most=1) == [4]


@pytest.mark.parametrize("answer", [perfect, lambda scene: no_detections()])
def test_pictures_can_be_drawn_of_all_and_of_nothing(scenes, answer):
    found = [answer(scene) for scene in scenes.scenes]
    scores = {"boxes": coco_scores(scenes, found, kind="bbox")}
    for content in (draw_detections(scenes, found), draw_precision_recall(scores)):
        image = Image.open(io.BytesIO(content))
        assert image.size[0] > 1000
        assert len(np.unique(np.asarray(image.convert("L")))) > 5


def test_details_name_classes_and_sizes(scenes):
    details = details_of({"boxes": coco_scores(scenes, [perfect(one) for one in scenes.scenes], kind="bbox")})
    assert set(details["boxes"]["AP by class"]) == set(scenes.classes)
    assert list(details["boxes"]["AP by class"].values()) == pytest.approx([100, 100, 100])
    assert details["boxes"]["AP by size"]["large"] is None  # no object has more than 96 x 96 pixels
