"""Reading COCO JSON: as COCO publishes it, as tools write it, and what is wrong in damaged files."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moco.data.sources.images import DataError
from moco.transfer.masks import bitmap, rle_of_bitmap
from moco.transfer.readers.collect import ReadOptions
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes
from moco.transfer.scenes import Rle
from tests.transfer.making_coco import POINTS, write
from tests.transfer.making_voc import picture


def content() -> dict[str, Any]:
    """Two images in the wrong order, and one without objects; ids with gaps; every kind of segmentation."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 139, "file_name": "000000000139.jpg", "width": 20, "height": 10},
            {"id": 9, "file_name": "000000000009.jpg", "width": 30, "height": 40},
            {"id": 25, "file_name": "000000000025.jpg", "width": 8, "height": 8},
        ],
        "annotations": [
            {"id": 17, "image_id": 139, "category_id": 90, "bbox": [1, 2, 3.5, 4], "area": 7.25, "iscrowd": 0,
             "segmentation": [[1, 2, 4.5, 2, 4.5, 6], [1, 2, 1, 6, 2, 6]]},
            {"id": 3, "image_id": 139, "category_id": 3, "bbox": [0, 0, 20, 10], "area": 5, "iscrowd": 1,
             "segmentation": {"size": [10, 20], "counts": [3, 5, 192]}},
            {"id": 900100000025, "image_id": 9, "category_id": 1, "bbox": [5, 5, 0, 0], "area": 0.0, "iscrowd": 0,
             "segmentation": []},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }  # fmt: skip


def test_scenes_are_ordered_by_id_and_classes_by_the_ids_of_their_categories(tmp_path: Path):
    scenes = read_scenes(write(tmp_path, content()))
    assert [scene.id for scene in scenes.scenes] == [9, 25, 139]
    assert scenes.classes == ("person", "car", "toothbrush")
    assert scenes.category_ids == (1, 3, 90)
    assert [scene.path.name for scene in scenes.scenes] == [f"{number:012d}.jpg" for number in (9, 25, 139)]
    assert [(scene.width, scene.height) for scene in scenes.scenes] == [(30, 40), (8, 8), (20, 10)]


def test_objects_are_as_in_the_file(tmp_path: Path):
    objects = read_scenes(write(tmp_path, content())).scenes[2].objects
    assert objects.ids == ("annotation 17", "annotation 3")
    assert objects.boxes.tolist() == [[1, 2, 4.5, 6], [0, 0, 20, 10]]
    assert objects.labels.tolist() == [2, 1]
    assert objects.areas.tolist() == [7.25, 5]
    assert objects.crowd.tolist() == [False, True]
    assert objects.masks is not None
    polygons, runs = objects.masks
    assert isinstance(polygons, tuple)
    assert [part.tolist() for part in polygons] == [[1, 2, 4.5, 2, 4.5, 6], [1, 2, 1, 6, 2, 6]]
    assert isinstance(runs, Rle)
    assert runs.runs.tolist() == [3, 5, 192]


def test_a_box_of_no_size_and_an_image_without_objects_are_kept(tmp_path: Path):
    scenes = read_scenes(write(tmp_path, content())).scenes
    assert scenes[0].objects.boxes.tolist() == [[5, 5, 5, 5]]
    assert scenes[0].objects.masks == (None,)
    assert len(scenes[1].objects) == 0


@pytest.mark.parametrize("layout", ["val2017", "images/val2017", "images", "."])
def test_images_are_found_where_people_put_them(tmp_path: Path, layout: str):
    file = write(tmp_path, content(), images=False)
    for image in content()["images"]:
        picture(tmp_path / layout / image["file_name"], 8, 8)
    assert read_scenes(file).scenes[0].path == tmp_path / layout / "000000000009.jpg"


def test_a_folder_of_images_may_be_named(tmp_path: Path):
    file = write(tmp_path, content(), images=False)
    for image in content()["images"]:
        picture(tmp_path / "elsewhere" / image["file_name"], 8, 8)
    scenes = read_scenes(file, ReadOptions(images=tmp_path / "elsewhere"))
    assert scenes.scenes[0].path.parent.name == "elsewhere"
    with pytest.raises(AnnotationError, match=r"image 9: there is no file 000000000009\.jpg in "):
        read_scenes(file)


def test_a_split_is_chosen_by_the_end_of_its_name(tmp_path: Path):
    write(tmp_path, content())
    write(tmp_path, {**content(), "images": [], "annotations": []}, "instances_train2017.json")
    assert len(read_scenes(tmp_path, ReadOptions(split="val2017"))) == 3
    with pytest.raises(DataError, match="choose from instances_train2017, instances_val2017"):
        read_scenes(tmp_path)
    with pytest.raises(DataError, match="no annotations for the split test"):
        read_scenes(tmp_path, ReadOptions(split="test"))
    with pytest.raises(DataError, match="names no images"):
        read_scenes(tmp_path, ReadOptions(split="train2017"))


def test_keypoints_are_read_and_those_of_an_object_without_are_not_labelled(tmp_path: Path):
    file = content()
    file["categories"] = [{"id": 1, "name": "person", "keypoints": POINTS, "skeleton": [[16, 14]]}]
    points = np.arange(51) % 3
    file["annotations"] = [
        {"id": 1, "image_id": 9, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 9, "keypoints": points.tolist(),
         "num_keypoints": 17},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 9, "iscrowd": 1},
    ]  # fmt: skip
    scenes = read_scenes(write(tmp_path, file))
    assert scenes.keypoint_names == POINTS
    keypoints = scenes.scenes[0].objects.keypoints
    assert keypoints is not None
    assert keypoints[0].reshape(-1).tolist() == points.tolist()
    assert keypoints[1].tolist() == [[0, 0, 0]] * 17
    assert scenes.scenes[0].objects.masks is None


def test_compressed_counts_are_decoded_to_the_same_mask(tmp_path: Path):
    from pycocotools import mask as coco_mask

    drawn = np.zeros((40, 30), dtype=bool)
    drawn[3:30, 5:25] = True
    file = content()
    encoded = coco_mask.encode(np.asfortranarray(drawn.astype(np.uint8)))
    file["annotations"] = [
        {"id": 1, "image_id": 9, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 0,
         "segmentation": {"size": [40, 30], "counts": encoded["counts"].decode()}},
    ]  # fmt: skip
    objects = read_scenes(write(tmp_path, file)).scenes[0].objects
    assert objects.masks is not None
    assert objects.masks[0] is not None
    assert (bitmap(objects.masks[0], 40, 30) == drawn).all()
    assert objects.areas.tolist() == [27 * 20]  # no area in the file: of the mask


def test_a_box_that_is_missing_is_drawn_around_the_mask(tmp_path: Path):
    file = content()
    for one in file["annotations"][:2]:
        del one["bbox"]
    assert read_scenes(write(tmp_path, file)).scenes[2].objects.boxes.tolist() == [[1, 2, 4.5, 6], [0, 3, 1, 8]]


def test_label_studio_writes_ids_from_0_paths_of_its_machine_and_no_masks(tmp_path: Path):
    file = {
        "images": [{"width": 50, "height": 40, "id": 0, "file_name": "images\\1a2b3c-cat.jpg"},
                   {"width": 50, "height": 40, "id": 1, "file_name": "../../label-studio/data/media/upload/1/dog.jpg"}],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "segmentation": [], "bbox": [1.5, 2, 3, 4],
                         "ignore": 0, "iscrowd": 0, "area": 12.0}],
        "info": {"description": "", "contributor": "Label Studio"},
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(file))
    picture(tmp_path / "images" / "1a2b3c-cat.jpg")
    picture(tmp_path / "images" / "dog.jpg")
    scenes = read_scenes(tmp_path / "result.json")
    assert [scene.path.name for scene in scenes.scenes] == ["1a2b3c-cat.jpg", "dog.jpg"]
    assert scenes.scenes[0].objects.boxes.tolist() == [[1.5, 2, 4.5, 6]]
    assert scenes.scenes[0].objects.masks is None


def test_cvat_writes_attributes_runs_for_masks_and_folders_in_names(tmp_path: Path):
    file = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "categories": [{"id": 1, "name": "tree", "supercategory": ""}],
        "images": [{"id": 1, "width": 6, "height": 4, "file_name": "plot 1/a.png", "license": 0, "flickr_url": ""}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "area": 4.0, "bbox": [0, 0, 2, 2], "iscrowd": 1,
                         "segmentation": {"counts": [0, 2, 2, 2, 18], "size": [4, 6]},
                         "attributes": {"occluded": False, "rotation": 0.0}}],
    }  # fmt: skip
    write(tmp_path, file, "instances_default.json", images=False)
    picture(tmp_path / "images" / "default" / "plot 1" / "a.png", 6, 4)
    scene = read_scenes(tmp_path).scenes[0]
    assert scene.path == tmp_path / "images" / "default" / "plot 1" / "a.png"
    assert scene.objects.masks is not None
    assert scene.objects.masks[0] is not None
    assert bitmap(scene.objects.masks[0], 4, 6).tolist() == [[True] * 2 + [False] * 4] * 2 + [[False] * 6] * 2


def test_roboflow_writes_a_file_in_each_split_and_a_category_above_the_others(tmp_path: Path):
    file = {
        "categories": [{"id": 0, "name": "pets-x1", "supercategory": "none"},
                       {"id": 1, "name": "cat", "supercategory": "pets-x1"},
                       {"id": 2, "name": "dog", "supercategory": "pets-x1"}],
        "images": [{"id": 0, "license": 1, "file_name": "a_jpg.rf.0f.jpg", "height": 40, "width": 50,
                    "extra": {"name": "a.jpg"}}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 2, "bbox": [1, 2, 3.5, 4], "area": 14,
                         "segmentation": [], "iscrowd": 0}],
    }  # fmt: skip
    for split in ("train", "valid"):
        picture(tmp_path / split / "a_jpg.rf.0f.jpg")
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(file))
    scenes = read_scenes(tmp_path, ReadOptions(split="valid"))
    assert scenes.classes == ("cat", "dog")
    assert scenes.category_ids == (1, 2)
    assert scenes.scenes[0].path == tmp_path / "valid" / "a_jpg.rf.0f.jpg"
    assert scenes.scenes[0].objects.labels.tolist() == [1]


def test_classes_may_be_given_in_the_order_of_training(tmp_path: Path):
    file = write(tmp_path, content())
    scenes = read_scenes(file, ReadOptions(classes=("car", "toothbrush", "person")))
    assert scenes.category_ids == (3, 90, 1)
    assert scenes.scenes[2].objects.labels.tolist() == [1, 0]
    with pytest.raises(AnnotationError, match="has the category person, which is none of the classes car, toothbrush"):
        read_scenes(file, ReadOptions(classes=("car", "toothbrush")))


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
    "unknown image": (changed("annotations", image_id=140), "annotation 17: image_id 140 is the id of no image"),
    "image as text": (changed("annotations", image_id="139"), "annotation 17: image_id '139' is the id of no image"),
    "unknown category": (changed("annotations", category_id=2), "annotation 17: category_id 2 is the id of no cat"),
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
    "cut text": (counts("o"), "the compressed counts are cut short"),
    "bad text": (counts("\x7f3"), "a character that none can have"),
    "other text": (counts("é3"), "a character that none can have|runs of a mask"),
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
    "": "no valid JSON", "[1]": "expected a JSON object, got a list", "{": "no valid JSON", "null": "got null",
    "\xff": "no valid JSON|expected a JSON object", "[" * 100_000: "no valid JSON",
    '{"images": ' + "9" * 5000 + "}": "no valid JSON",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_json_object_is_an_error(tmp_path: Path, text: str):
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


VALUES = (
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    float("nan"),
    10**30,
    "",
    "text",
    [],
    [[]],
    [None],
    {},
    {"size": [1]},
    [[1] * 6],
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a nested value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, part in inner for place in places(part, (*path, key))]


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
        *path, last = every[int(rng.integers(len(every)))]
        target: Any = damaged
        for key in path:
            target = target[key]
        target[last] = copy.deepcopy(VALUES[number % len(VALUES)])
        file.write_text(json.dumps(damaged))
        error = error_of(file)
        refused += isinstance(error, AnnotationError)
        assert error is None or str(file) in str(error)
    assert refused >= 200


def test_2000_random_run_length_masks_are_read_or_refused_and_no_c_code_dies(tmp_path: Path):
    from moco.transfer.masks import rle_dict, rle_of_runs, rle_of_text

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
