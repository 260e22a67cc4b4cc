"""Reading LabelMe's JSON files."""

import base64
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moco.data.sources.images import DataError
from moco.transfer.masks import bitmap
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes
from moco.transfer.readers.shared import ReadOptions
from tests.transfer.sample_voc import picture


def png(drawn: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def content(*shapes: dict[str, Any]) -> dict[str, Any]:
    return {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "..\\raw\\a.jpg", "imageData": None,
            "imageHeight": 40, "imageWidth": 50}  # fmt: skip


TRIANGLE = [[1, 2], [11.5, 2], [1, 12]]


def write(folder: Path, *shapes: dict[str, Any]) -> Path:
    picture(folder / "a.jpg")
    (folder / "a.json").write_text(json.dumps(content(*shapes)))
    return folder


def test_polygons_rectangles_and_circles_have_boxes_and_areas(tmp_path: Path):
    write(
        tmp_path, shape("dog", TRIANGLE), shape("cat", [[30, 20], [10, 5]], "rectangle"),
        shape("dog", [[20, 20], [23, 24]], "circle"),
    )  # fmt: skip
    scenes = read_scenes(tmp_path)
    assert scenes.classes == ("cat", "dog")
    scene = scenes.scenes[0]
    assert (scene.id, scene.path.name, scene.width, scene.height) == ("a", "a.jpg", 50, 40)
    assert scene.objects.boxes == pytest.approx(np.array([[1, 2, 11.5, 12], [10, 5, 30, 20], [15, 15, 25, 25]]))
    assert scene.objects.areas == pytest.approx([52.5, 300, np.pi * 25], rel=2e-3)
    assert scene.objects.labels.tolist() == [1, 0, 1]
    assert scene.objects.masks is not None
    assert [mask is None for mask in scene.objects.masks] == [False, True, False]


def test_polygons_of_one_group_are_the_parts_of_one_object(tmp_path: Path):
    other = (np.array(TRIANGLE) + 20).tolist()
    write(
        tmp_path, shape("dog", TRIANGLE, group_id=1), shape("dog", other, group_id=1), shape("cat", other, group_id=1)
    )
    objects = read_scenes(tmp_path).scenes[0].objects
    assert objects.boxes.tolist() == [[1, 2, 31.5, 32], [21, 22, 31.5, 32]]
    assert objects.areas.tolist() == [105, 52.5]
    assert objects.masks is not None
    assert [len(mask) for mask in objects.masks if isinstance(mask, tuple)] == [2, 1]


def test_a_bitmap_is_placed_at_its_first_corner(tmp_path: Path):
    drawn = np.array([[0, 255, 255], [255, 0, 0]], dtype=np.uint8)
    write(tmp_path, shape("dog", [[4, 6], [6, 7]], "mask", mask=png(drawn)))
    objects = read_scenes(tmp_path).scenes[0].objects
    assert objects.masks is not None
    assert objects.masks[0] is not None
    whole = np.zeros((40, 50), dtype=bool)
    whole[6:8, 4:7] = drawn > 0
    assert (bitmap(objects.masks[0], 40, 50) == whole).all()
    assert objects.boxes.tolist() == [[4, 6, 7, 8]]
    assert objects.areas.tolist() == [3]


def test_files_are_sorted_by_name_and_classes_may_be_given(tmp_path: Path):
    write(tmp_path, shape("dog", TRIANGLE))
    picture(tmp_path / "B.png")
    (tmp_path / "B.json").write_text(json.dumps({**content(shape("cat", TRIANGLE)), "imagePath": "B.png"}))
    scenes = read_scenes(tmp_path, ReadOptions(classes=("fox", "dog", "cat")))
    assert [scene.id for scene in scenes.scenes] == ["B", "a"]
    assert [scene.objects.labels.tolist() for scene in scenes.scenes] == [[2], [1]]
    with pytest.raises(AnnotationError, match=r"B\.json, shape number 1: cat is none of the classes: dog"):
        read_scenes(tmp_path, ReadOptions(classes=("dog",)))
    with pytest.raises(DataError, match="has no folder val"):
        read_scenes(tmp_path, ReadOptions(split="val"))


MALFORMED = {
    "point": (shape("dog", [[1, 2]], "point"), "shape number 1: a point of 1 points has no area"),
    "line": (shape("dog", [[1, 2], [3, 4]], "line"), "a line of 2 points has no area"),
    "rectangle": (shape("dog", [[1, 2]], "rectangle"), "a rectangle of 1 points has no area"),
    "two corners": (shape("dog", [[1, 2], [3, 4]]), "a polygon has 4 numbers; expected x and y of at least 3 points"),
    "no points": (shape("dog", []), "a polygon has 0 numbers"),
    "three coordinates": (shape("dog", [[1, 2, 3]] * 3), "a point must be a list of 2 finite numbers, got 3 values"),
    "text": (shape("dog", [["1", 2]] * 3), "a point must be a list of 2 finite numbers"),
    "nan": (shape("dog", [[float("nan"), 2]] * 3), "a point must be a list of 2 finite numbers"),
    "numbers": (shape("dog", [1, 2, 3]), "a point must be a list of 2 finite numbers, got 1"),
    "points text": (shape("dog", "abc"), "points must be a list, got 'abc'"),
    "no label": (shape("", TRIANGLE), "label must be text, got ''"),
    "label a number": ({**shape("a", TRIANGLE), "label": 3}, "label must be text, got 3"),
    "kind a number": ({**shape("a", TRIANGLE), "shape_type": 3}, "shape_type must be text, got 3"),
    "group of text": (shape("dog", TRIANGLE, group_id="x"), "group_id must be a whole number"),
    "no mask": (shape("dog", [[1, 2], [3, 4]], "mask"), "has no 'mask'"),
    "mask of text": (shape("dog", [[1, 2], [3, 4]], "mask", mask="AAAA"), "its mask is not a PNG in base64"),
    "mask no base64": (shape("dog", [[1, 2], [3, 4]], "mask", mask="???"), "its mask is not a PNG in base64"),
    "mask outside": (shape("dog", [[49, 2], [51, 2]], "mask", mask=png(np.full((1, 3), 255, np.uint8))), "extends"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_shape_is_an_error_that_names_file_and_shape(tmp_path: Path, case: str):
    bad, message = MALFORMED[case]
    write(tmp_path, bad, shape("cat", TRIANGLE))
    with pytest.raises(AnnotationError, match=message) as caught:
        read_scenes(tmp_path)
    assert (caught.value.file, caught.value.entry) == (tmp_path / "a.json", "shape number 1")
    assert read_scenes(tmp_path, ReadOptions(skip_bad=True)).classes == ("cat",)


def test_an_image_inside_of_the_json_file_is_an_error_with_what_to_do(tmp_path: Path):
    write(tmp_path, shape("dog", TRIANGLE))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(AnnotationError, match="save it as a file beside it"):
        read_scenes(tmp_path)


def test_any_value_in_any_place_is_read_or_an_error_of_that_file(tmp_path: Path):
    rng = np.random.default_rng(0)
    whole = content(shape("dog", TRIANGLE), shape("cat", [[4, 6], [6, 7]], "mask", mask=png(np.eye(2, dtype=np.uint8))))
    write(tmp_path)
    refused = 0
    for _ in range(200):
        damaged = copy.deepcopy(whole)
        target: Any = damaged if rng.random() < 0.4 else damaged["shapes"][int(rng.integers(2))]
        target[str(rng.choice([*target]))] = [None, -1, 1e30, "x", [], [[]], {}, True][int(rng.integers(8))]
        (tmp_path / "a.json").write_text(json.dumps(damaged))
        error = error_of(tmp_path)
        refused += error is not None
        assert error is None or "a.json" in str(error)
    assert refused >= 60


def error_of(folder: Path) -> DataError | None:
    try:
        read_scenes(folder, format="labelme")
    except DataError as error:
        return error
    return None
