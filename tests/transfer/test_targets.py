"""The dict of tensors that a detector is trained on."""

import numpy as np
import torch

from moco.transfer.detection.targets import targets
from moco.transfer.masks import rle_of_bitmap
from tests.transfer.sample_scenes import objects, scene_set

TRIANGLE = (np.array([10.0, 10, 40, 10, 10, 40]),)


def test_boxes_are_clipped_and_those_without_area_are_excluded():
    boxes = [[-5, 10, 120, 40], [100, 0, 110, 10], [20, 20, 20, 30], [1, 2, 3, 4]]
    target = targets(scene_set("ab", [objects(boxes, [1, 0, 0, 0])]).scenes[0])
    assert target["boxes"].tolist() == [[0, 10, 100, 40], [1, 2, 3, 4]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [1, 0]
    assert target["labels"].dtype == torch.int64
    assert target["indices"].tolist() == [0, 3]


def test_crowds_are_left_out_and_difficult_objects_are_not():
    boxes = [[0, 0, 9, 9], [0, 0, 8, 8]]
    target = targets(scene_set("a", [objects(boxes, [0, 0], crowd=[True, False], difficult=[False, True])]).scenes[0])
    assert target["boxes"].tolist() == [[0, 0, 8, 8]]


def test_an_image_without_objects_has_empty_tensors():
    target = targets(scene_set("a", [objects([], [], masks=(), keypoints=np.zeros((0, 17, 3)))]).scenes[0])
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["keypoints"].shape == (0, 17, 3)
    assert target["masks"] == []


def test_keypoints_lie_at_the_centres_of_pixels_and_those_not_labelled_are_zeros():
    points = np.array([[[3.0, 4, 2], [5, 6, 1], [7, 8, 0]]])
    target = targets(scene_set("a", [objects([[0, 0, 9, 9]], [0], keypoints=points)]).scenes[0])
    assert target["keypoints"].tolist() == [[[3.5, 4.5, 2], [5.5, 6.5, 1], [0, 0, 0]]]
    assert points[0, 0].tolist() == [3, 4, 2]  # unchanged


def test_polygons_stay_polygons_and_objects_without_a_mask_are_left_out():
    scene = scene_set("a", [objects([[0, 0, 9, 9], [10, 10, 40, 40]], [0, 0], masks=(None, TRIANGLE))]).scenes[0]
    target = targets(scene)
    assert target["masks"] == [TRIANGLE]
    assert target["indices"].tolist() == [1]


def test_beside_a_run_length_mask_all_masks_are_bitmaps():
    drawn = np.zeros((100, 100), dtype=bool)
    drawn[3:9, 2:8] = True
    scene = scene_set("a", [objects([[0, 0, 9, 9], [10, 10, 40, 40]], [0, 0], masks=(rle_of_bitmap(drawn), TRIANGLE))])
    masks = targets(scene.scenes[0])["masks"]
    assert masks.dtype == torch.bool
    assert (masks[0].numpy() == drawn).all()
    assert masks[1].sum() > 400  # of 450 [pixels]
