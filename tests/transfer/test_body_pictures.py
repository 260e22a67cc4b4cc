"""The picture of dense poses, and the choice of its images."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from moco.transfer.detection.body_pictures import _colours_of_parts, _paint, draw_bodies, hardest_bodies, mean_gps
from moco.transfer.metrics.densepose import BodyResults, Similarities
from moco.transfer.readers.formats import read_scenes
from tests.transfer.scenes_of_lvis_and_cityscapes import make_bodies


def image(gps: list[list[float]], scores: list[float], annotated: list[bool]) -> Similarities:
    p, g = len(scores), len(annotated)
    values = np.array(gps).reshape(p, g)
    return Similarities(
        values, values, np.array(scores), np.ones(p), np.ones(g), np.array(annotated), np.zeros(g, dtype=bool)
    )


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (image([[0.9, 0.1], [0.2, 0.5]], [0.8, 0.6], [True, True]), 0.7),  # the best of each person
        (image([[0.9, 0.1], [0.2, 0.5]], [0.8, 0.4], [True, True]), 0.5),  # the second has a low score
        (image([[0.9, 0.1]], [0.8], [True, False]), 0.9),
        (image([], [], [True]), 0.0),
    ],
)
def test_the_mean_gps_is_over_the_persons_with_points(one, expected):
    assert mean_gps(one) == pytest.approx(expected)


def test_images_without_points_are_the_easiest():
    none = image([[0.3]], [0.9], [False])
    assert math.isnan(mean_gps(none))
    images = [none, image([[0.6]], [0.9], [True]), image([[0.4]], [0.9], [True])]
    assert hardest_bodies(images, most=3) == [2, 1, 0]


def person(box: list[float], part: int, score: float) -> BodyResults:
    height, width = int(box[3] - box[1]), int(box[2] - box[0])
    uv = np.stack([np.full((height, width), 1.0), np.full((height, width), 0.0)])
    return BodyResults(
        np.array([box], dtype=np.float64), np.array([score]), (np.full((height, width), part, dtype=np.uint8),), (uv,)
    )


def test_the_pixels_of_a_part_are_painted_where_they_were_predicted():
    pixels = np.full((20, 30, 3), 51, dtype=np.uint8)
    by_part, by_place = _paint(pixels, person([4.75, 3.25, 10.75, 8.25], 5, 0.9))  # 6 x 5 pixels from (4, 3) on
    inside = np.zeros((20, 30), dtype=bool)
    inside[3:8, 4:10] = True
    assert np.allclose(by_part[inside], _colours_of_parts(np.array([5])))
    assert np.allclose(by_place[inside], (1, 0, 0.35))  # U is red, V green
    assert np.allclose(by_part[~inside], 0.2)


def test_a_box_at_the_border_and_a_low_score_are_drawn_as_far_as_they_are_seen():
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    by_part, _ = _paint(pixels, person([26, 17, 40, 30], 5, 0.9))
    assert by_part.any(axis=2).sum() == 4 * 3
    assert not _paint(pixels, person([2, 2, 9, 9], 5, 0.4))[0].any()


def test_the_picture_has_points_and_parts(tmp_path):
    scenes = read_scenes(make_bodies(tmp_path, 3, seed=0), format="densepose")
    found = [person([5, 5, 50, 60], 20, 0.9), person([5, 5, 50, 60], 20, 0.1)]
    content = draw_bodies(scenes, [2, 0], found, [0.1, float("nan")])
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    colour = np.round(255 * _colours_of_parts(np.array([20]))[0])
    assert (abs(picture - colour).max(axis=2) <= 1).sum() > 5_000  # only of the first image, which is on top
    assert (abs(picture[picture.shape[0] // 2 + 20 :] - colour).max(axis=2) <= 1).sum() < 100
