"""Reading COCO JSON: as COCO publishes it, as tools write it, and what is wrong in damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest

from moco.data.sources.images import DataError
from moco.transfer.masks import bitmap
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.scenes import Rle
from tests.transfer.sample_coco import POINTS, content, write
from tests.transfer.sample_voc import picture


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
    with pytest.raises(DataError, match="splits instances_train2017, instances_val2017: expected one of them"):
        read_scenes(tmp_path)
    with pytest.raises(DataError, match="expected one of them, got test"):
        read_scenes(tmp_path, ReadOptions(split="test"))
    with pytest.raises(DataError, match="has no images"):
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
    with pytest.raises(AnnotationError, match="has the category person; expected only the classes car, toothbrush"):
        read_scenes(file, ReadOptions(classes=("car", "toothbrush")))
