"""Damaged COCO files: every one is an error that names the file and the entry, and no C code dies."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moco.data.sources.images import DataError
from moco.transfer.masks import bitmap, rle_dict, rle_of_bitmap, rle_of_runs, rle_of_text
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes
from moco.transfer.readers.shared import ReadOptions
from tests.damage import VALUES, places, put
from tests.transfer.sample_coco import content, write


def changed(where: str, **values: Any) -> Any:
    """The content with some values of its first image, annotation or category set, or removed by `...`."""

    def change(file: dict[str, Any]) -> None:
        for key, value in values.items():
            if value is ...:
                del file[where][0][key]
            else:
                file[where][0][key] = value

    return change


def replaced(key: str, value: Any) -> Any:
    return lambda file: file.update({key: value})


def counts(value: Any, size: Any = (10, 20)) -> Any:
    return changed("annotations", segmentation={"size": list(size), "counts": value})


def twice(where: str) -> Any:
    return lambda file: file[where].append(dict(file[where][0]))


MALFORMED = {
    "images missing": (lambda file: file.pop("images"), "has no 'images'"),
    "images null": (replaced("images", None), "has no 'images'"),
    "images object": (replaced("images", {}), "images must be a list"),
    "image a number": (replaced("images", [3]), "image number 1: expected a JSON object, got 3"),
    "image without id": (changed("images", id=...), "image number 1: has no 'id'"),
    "image without name": (changed("images", file_name=...), "image 139: has no 'file_name'"),
    "image name a number": (changed("images", file_name=3), "image 139: file_name must be text, got 3"),
    "image without width": (changed("images", width=...), "image 139: has no 'width'"),
    "image of no width": (changed("images", width=0), "image 139: width must be a whole number from 1 to"),
    "image of endless width": (changed("images", width=float("inf")), "width must be a whole number"),
    "image of text": (changed("images", height="10"), "height must be a whole number .*got '10'"),
    "image true": (changed("images", id=True), "id must be a whole number, got True"),
    "image twice": (twice("images"), "image 139: another image has the same id"),
    "one file twice": (changed("images", file_name="000000000009.jpg"), "image 139: .* is the file of image 9 too"),
    "name of null": (changed("images", file_name="a\0.jpg"), "image 139: there is no file"),
    "image outside": (changed("images", file_name="../../../etc/passwd"), "image 139: there is no file"),
    "categories empty": (replaced("categories", []), "has no categories"),
    "category twice": (twice("categories"), "two categories have the same id"),
    "category of text": (changed("categories", id="90"), "category 90: id must be a whole number"),
    "category without name": (changed("categories", name=...), "category 90: has no 'name'"),
    "keypoints of a category": (changed("categories", keypoints=3), "category 90: keypoints must be a list"),
    "names of keypoints": (changed("categories", keypoints=[3]), "category 90: keypoints must be a list of names"),
    "annotations missing": (lambda file: file.pop("annotations"), "has no 'annotations'"),
    "annotation null": (replaced("annotations", [None]), "annotation number 1: expected a JSON object, got null"),
    "annotation a list": (replaced("annotations", [[1]]), "annotation number 1: expected a JSON object, got a list"),
    "annotation twice": (twice("annotations"), "annotation 17: another annotation has the same id"),
    "id a list": (changed("annotations", id=[1]), "annotation number 1: id must be a whole number, got a list"),
    "no image_id": (changed("annotations", image_id=...), "annotation 17: has no 'image_id'"),
    "unknown image": (changed("annotations", image_id=140), "annotation 17: image_id 140: there is no image"),
    "image as text": (changed("annotations", image_id="139"), "annotation 17: image_id '139': there is no image"),
    "unknown category": (changed("annotations", category_id=2), "annotation 17: category_id 2: there is no category"),
    "category null": (changed("annotations", category_id=None), "annotation 17: has no 'category_id'"),
    "box of 3": (changed("annotations", bbox=[1, 2, 3]), "bbox must be a list of 4 finite numbers, got 3 values"),
    "box of text": (changed("annotations", bbox=["1", 2, 3, 4]), "annotation 17: bbox must be a list of 4 finite"),
    "box of null": (changed("annotations", bbox=[None] * 4), "bbox must be a list of 4 finite numbers"),
    "box of lists": (changed("annotations", bbox=[[1], [2], [3], [4]]), "bbox must be a list of 4 finite numbers"),
    "box of uneven lists": (changed("annotations", bbox=[[1], 2, 3, 4]), "bbox must be a list of 4 finite numbers"),
    "box of booleans": (changed("annotations", bbox=[True, 1, 2, 3]), "bbox must be a list of 4 finite numbers"),
    "box text": (changed("annotations", bbox="1234"), "bbox must be a list, got '1234'"),
    "box of nan": (changed("annotations", bbox=[float("nan"), 0, 1, 1]), "bbox must be .*nan"),
    "endless box": (changed("annotations", bbox=[0, 0, float("inf"), 1]), "bbox must be .*inf"),
    "huge box": (changed("annotations", bbox=[0, 0, 10**400, 1]), "bbox must be"),
    "far box": (changed("annotations", bbox=[0, 0, 10**9, 1]), "bbox must be .* of at most 10,000,000"),
    "negative box": (changed("annotations", bbox=[5, 5, -1, 1]), "bbox has the negative size -1 x 1"),
    "area of text": (changed("annotations", area="big"), "area must be a finite number, got 'big'"),
    "area nan": (changed("annotations", area=float("nan")), "area must be a finite number, got nan"),
    "negative area": (changed("annotations", area=-1), "area must not be negative"),
    "crowd of 2": (changed("annotations", iscrowd=2), "iscrowd must be a whole number from 0 to 1, got 2"),
    "crowd of half": (changed("annotations", iscrowd=0.5), "iscrowd must be a whole number"),
    "polygon text": (changed("annotations", segmentation="poly"), "annotation 17: expected a JSON object, got 'poly'"),
    "polygon flat": (changed("annotations", segmentation=[1, 2, 3, 4, 5, 6]), "a polygon of segmentation must be a"),
    "polygon of 4": (changed("annotations", segmentation=[[1, 2, 3, 4]]), "a polygon has 4 numbers; expected x and y"),
    "polygon of 7": (changed("annotations", segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "a polygon has 7 numbers"),
    "polygon of nan": (changed("annotations", segmentation=[[1, 2, 3, float("nan"), 5, 6]]), "finite numbers"),
    "polygon of text": (changed("annotations", segmentation=[[1, 2, "3", 4, 5, 6]]), "finite numbers"),
    "endless polygon": (changed("annotations", segmentation=[[0, 0, 9e6, 0, 0, 9e6]]), "outline of a polygon is"),
    "runs without size": (changed("annotations", segmentation={"counts": [200]}), "annotation 17: has no 'size'"),
    "runs without counts": (changed("annotations", segmentation={"size": [10, 20]}), "annotation 17: has no 'counts'"),
    "runs of another size": (counts([200], [20, 10]), "the mask has 20 x 10 pixels, its image 10 x 20"),
    "too many runs": (counts([201]), "the runs of a mask have 201 pixels; 10 x 20 are 200|a run of 201 pixels"),
    "too few runs": (counts([3, 5]), "the runs of a mask have 8 pixels; 10 x 20 are 200"),
    "no runs": (counts([]), "the runs of a mask have 0 pixels"),
    "negative run": (counts([-5, 205]), "a run of -5 pixels"),
    "half run": (counts([0.5, 199.5]), "counts must be whole numbers"),
    "runs of text": (counts(["3", "197"]), "counts must be a list of finite numbers"),
    "counts a number": (counts(200), "counts must be a list of finite numbers, got 200"),
    "empty text": (counts(""), "the compressed counts are empty"),
    "cut text": (counts("o"), "the compressed counts are truncated"),
    "bad text": (counts("\x7f3"), "an invalid character"),
    "other text": (counts("é3"), "an invalid character|runs of a mask"),
    "long text": (counts("o" * 20 + "1"), "a number that is too large"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_an_error_that_names_file_and_entry(tmp_path: Path, case: str):
    change, message = MALFORMED[case]
    damaged = copy.deepcopy(content())
    change(damaged)
    write(tmp_path, content())
    file = write(tmp_path, damaged, images=False)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_scenes(file, format="coco")
    assert caught.value.file == file


TEXTS = {
    "": "not valid JSON", "[1]": "expected a JSON object, got a list", "{": "not valid JSON", "null": "got null",
    "\xff": "not valid JSON|expected a JSON object", "[" * 100_000: "not valid JSON",
    '{"images": ' + "9" * 5000 + "}": "not valid JSON",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_file_that_is_not_a_json_object_is_an_error(tmp_path: Path, text: str):
    file = tmp_path / "a.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(AnnotationError, match=TEXTS[text]):
        read_scenes(file, format="coco")


def test_annotations_that_cannot_be_used_may_be_skipped_and_are_remembered(tmp_path: Path):
    damaged = content()
    damaged["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    scenes = read_scenes(write(tmp_path, damaged), ReadOptions(skip_bad=True))
    assert scenes.scenes[2].objects.ids == ("annotation 3",)
    assert len(scenes.skipped) == 1
    assert "annotation 17: a polygon has 4 numbers" in scenes.skipped[0]


def error_of(file: Path) -> DataError | None:
    try:
        read_scenes(file, format="coco")
    except DataError as error:
        return error
    return None


def test_any_value_in_any_place_is_read_or_an_error_of_that_file(tmp_path: Path):
    rng = np.random.default_rng(0)
    file = write(tmp_path, content())
    every = places(content())
    refused = 0
    for number in range(400):
        damaged = content()
        put(damaged, every[int(rng.integers(len(every)))], VALUES[number % len(VALUES)])
        file.write_text(json.dumps(damaged))
        error = error_of(file)
        refused += isinstance(error, AnnotationError)
        assert error is None or str(file) in str(error)
    assert refused >= 200


def test_2000_random_run_length_masks_are_read_or_refused_and_no_c_code_dies(tmp_path: Path):
    rng = np.random.default_rng(1)
    good = 0
    for number in range(2000):
        height, width = int(rng.integers(1, 30)), int(rng.integers(1, 30))
        kind = number % 4
        try:
            if kind == 0:
                rle = rle_of_text(height, width, "".join(map(chr, rng.integers(1, 256, int(rng.integers(0, 40))))))
            elif kind == 1:
                rle = rle_of_text(height, width, "".join(map(chr, rng.integers(48, 112, int(rng.integers(1, 12))))))
            elif kind == 2:
                rle = rle_of_runs(height, width, rng.integers(-2, 2**31, int(rng.integers(0, 9))))
            else:
                drawn = rng.random((height, width)) < rng.random()
                rle = rle_of_bitmap(drawn)
                assert (bitmap(rle, height, width) == drawn).all()
        except ValueError:
            continue
        good += 1
        assert rle.runs.sum() == height * width
        rle_dict(rle, height, width)
    assert good >= 500
