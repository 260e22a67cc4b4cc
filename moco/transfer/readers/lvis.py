"""LVIS v0.5 and v1: COCO JSON with many classes, of which only some are annotated in each image."""

from dataclasses import replace
from pathlib import Path

from moco.transfer.readers import coco
from moco.transfer.readers.entries import JsonObject, read_json_object
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.scenes import Scene, SceneSet

FREQUENCIES = ("r", "c", "f")  # of classes: rare, common, frequent


def recognises(path: Path) -> bool:
    """COCO JSON with a key that only LVIS has."""
    every = map(coco.ends_of, coco.find_annotation_files(path).values())
    return any(b'"neg_category_ids"' in ends or b'"frequency"' in ends for ends in every)


def read(path: Path, options: ReadOptions) -> SceneSet:
    """The scenes of a file in the order of their ids, as in `coco.read`.

    Images are found by the end of `coco_url` (v1: some images of val are in train2017), or by the last 16 characters of
    the name (v0.5: COCO_val2014_000000001268.jpg).

    Raises:
        AnnotationError: an annotation cannot be used; the message has its file and id.
        DataError: there is no such split.
    """
    root = read_json_object(coco.choose_split_file(coco.find_annotation_files(path), options.split, path))
    scenes = coco.read_content(root, options, name_of=_name)
    place = {number: index for index, number in enumerate(scenes.category_ids)}
    images = {entry.identity(): entry for entry in root.entries("images", "image")}
    frequency = {entry.integer("id"): _frequency(entry) for entry in root.entries("categories", "category")}
    federated = tuple(_federated(scene, images[scene.id], place) for scene in scenes.scenes)
    return replace(scenes, scenes=federated, frequencies=tuple(frequency[number] for number in scenes.category_ids))


def _name(image: JsonObject) -> str:
    if image.has("coco_url"):
        return "/".join(image.text("coco_url").split("/")[-2:])
    return image.text("file_name")[-16:]


def _federated(scene: Scene, image: JsonObject, place: dict[int, int]) -> Scene:
    """The scene with its absent classes, and its classes of which some objects are not annotated."""
    classes: list[tuple[int, ...]] = []
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        numbers = [int(number) for number in image.numbers(key)]
        if unknown := [number for number in numbers if number not in place]:
            image.fail(f"{key} {unknown[0]}: there is no category with this id")
        classes.append(tuple(place[number] for number in numbers))
    return replace(scene, negative=classes[0], not_exhaustive=classes[1])


def _frequency(category: JsonObject) -> str:
    value = category.text("frequency")
    if value not in FREQUENCIES:
        category.fail(f"frequency must be one of {', '.join(FREQUENCIES)}, got {value!r}")
    return value
