"""Reading DensePose-COCO."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from moco.transfer.detection.targets import targets
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes
from moco.transfer.readers.shared import ReadOptions
from tests.transfer.sample_voc import picture


def part(left: int) -> dict[str, Any]:
    """A coarse part of 20 columns, as the true files have it."""
    drawn = np.zeros((256, 256), dtype=np.uint8, order="F")
    drawn[:, left : left + 20] = 1
    encoded = coco_mask.encode(drawn)
    return {"size": [256, 256], "counts": encoded["counts"].decode()}


def content() -> dict[str, Any]:
    person = {"image_id": 785, "category_id": 1, "iscrowd": 0, "area": 300.0}
    return {
        "images": [{"id": 785, "file_name": "COCO_val2014_000000000785.jpg", "width": 50, "height": 40}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {**person, "id": 5, "bbox": [1, 2, 20, 30], "dp_x": [0.0, 127.5, 255.0], "dp_y": [3.5, 100.0, 255.0],
             "dp_I": [1.0, 24.0, 2.0], "dp_U": [0.0, 0.5, 1.0], "dp_V": [0.25, 1.0, 0.0],
             "dp_masks": [part(0), [], part(10), *[[]] * 11]},
            {**person, "id": 6, "bbox": [10, 2, 20, 30]},
        ],
    }  # fmt: skip


def write(root: Path, file: dict[str, Any]) -> Path:
    picture(root / "val2014" / "COCO_val2014_000000000785.jpg")
    path = root / "annotations" / "densepose_coco_2014_val2014.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(file))
    return path


def test_points_parts_and_coarse_masks_are_read_and_persons_without_have_none(tmp_path: Path):
    scene = read_scenes(write(tmp_path, content())).scenes[0]
    assert scene.objects.body_points is not None
    points, nothing = scene.objects.body_points
    assert nothing is None
    assert points is not None
    assert points.x.tolist() == [0, 127.5, 255]
    assert points.y.tolist() == [3.5, 100, 255]
    assert points.part.tolist() == [1, 24, 2]
    assert points.u.tolist() == [0, 0.5, 1]
    assert points.v.tolist() == [0.25, 1, 0]
    assert (points.mask[:, :10] == 1).all()
    assert (points.mask[:, 10:30] == 3).all()  # the later part covers the earlier one
    assert (points.mask[:, 30:] == 0).all()


def test_the_target_has_an_annotation_for_each_person(tmp_path: Path):
    target = targets(read_scenes(write(tmp_path, content())).scenes[0])
    points, nothing = target["densepose"]
    assert nothing is None
    assert points.x.tolist() == [0, 127.5, 255]
    assert points.part.dtype == torch.int64
    assert points.mask.shape == (256, 256)
    assert points.mask.dtype == torch.uint8


MALFORMED = {
    "lengths": (
        {"dp_x": [1.0]},
        r"annotation 5: .* dp_V have different lengths: \[1, 3, 3, 3, 3\]",
    ),
    "missing": ({"dp_U": None}, "annotation 5: has no 'dp_U'"),
    "part 25": ({"dp_I": [1, 25, 2]}, "dp_I must lie in 1 to 24, got 25"),
    "part 0": ({"dp_I": [1, 0, 2]}, "dp_I must lie in 1 to 24, got 0"),
    "half a part": ({"dp_I": [1, 1.5, 2]}, "dp_I must hold whole numbers"),
    "U": ({"dp_U": [0, -0.5, 1]}, "dp_U must lie in 0 to 1, got -0.5"),
    "x": ({"dp_x": [0, 300, 1]}, "dp_x must lie in 0 to 256, got 300"),
    "nan": ({"dp_V": [0, float("nan"), 1]}, "dp_V must be a list of finite numbers"),
    "text": ({"dp_V": ["0", 1, 1]}, "dp_V must be a list of finite numbers"),
    "masks": ({"dp_masks": []}, "dp_masks must hold 14 masks, got 0"),
    "no list": ({"dp_masks": {}}, "dp_masks must be a list"),
    "size": ({"dp_masks": [{"size": [2, 2], "counts": [4]}, *[[]] * 13]}, "the mask has 2 x 2 pixels, its image 256 x"),
    "counts": ({"dp_masks": [{"size": [256, 256], "counts": "oo"}, *[[]] * 13]}, "the compressed counts are truncated"),
    "polygon": ({"dp_masks": [[1, 2, 3], *[[]] * 13]}, "annotation 5: expected a JSON object, got a list"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_points_are_an_error_that_names_file_and_annotation(tmp_path: Path, case: str):
    changes, message = MALFORMED[case]
    file = copy.deepcopy(content())
    file["annotations"][0].update(changes)
    path = write(tmp_path, file)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_scenes(path, format="densepose")
    assert (caught.value.file, caught.value.entry) == (path, "annotation 5")
    scenes = read_scenes(path, ReadOptions(skip_bad=True), format="densepose")
    assert scenes.scenes[0].objects.body_points == (None, None)
    assert len(scenes.skipped) == 1
