"""iNaturalist 2018: train2018.json and val2018.json, with images in nested folders."""

import re
from pathlib import Path

from moco.text import escape
from moco.transfer.labelled import Item, LabelledFiles
from moco.transfer.readers.entries import AnnotationError, JsonObject, read_json_object
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.shared import ReadOptions, split_error

NAME = re.compile(r"(train|val)(\d{4})\.json")


def recognises(path: Path) -> bool:
    return bool(_files(path))


def read(path: Path, options: ReadOptions) -> LabelledFiles:
    """The images of `train` or `val`, in the order of their ids. Classes are in the order of the categories' ids.

    Raises:
        AnnotationError: an entry cannot be used; the message has its file and id.
        DataError: there is no such split.
    """
    files = _files(path)
    chosen = [file for split, file in files.items() if options.split in (split, file.stem) or len(files) == 1]
    if len(chosen) != 1:
        raise split_error(path, files, options.split)
    root = read_json_object(chosen[0])
    classes = _classes(root)
    category_of = _categories_of_images(root, classes)
    images = ImageFiles([options.images or chosen[0].parent])
    items: list[tuple[int, Item]] = []
    for entry in root.entries("images", "image"):
        number, name = entry.integer("id"), entry.text("file_name")
        image = images.find(name)
        if number not in category_of:
            entry.fail("has no annotation, or another image has its id")
        if image is None:
            entry.fail(f"there is no file {escape(name)} in {images.describe()}")
        items.append((number, Item(image, name, category_of.pop(number))))
    return LabelledFiles([item for _, item in sorted(items, key=lambda pair: pair[0])], list(classes.values()))


def _files(path: Path) -> dict[str, Path]:
    """The JSON files by their splits."""
    if path.is_file():
        match = NAME.fullmatch(path.name)
        return {match[1]: path} if match else {}
    if not path.is_dir():
        return {}
    return {match[1]: file for file in sorted(path.glob("*.json")) if (match := NAME.fullmatch(file.name))}


def _classes(root: JsonObject) -> dict[int, str]:
    """The names of the categories by id. If names occur twice, each gets its id appended."""
    names: dict[int, str] = {}
    for entry in root.entries("categories", "category"):
        number = entry.integer("id")
        if number in names:
            entry.fail("another category has the same id")
        names[number] = entry.text("name")
    if not names:
        root.fail("has no categories")
    unique = len({*names.values()}) == len(names)
    return {number: names[number] if unique else f"{names[number]} {number}" for number in sorted(names)}


def _categories_of_images(root: JsonObject, classes: dict[int, str]) -> dict[int, int]:
    """The class of each image, by the image's id."""
    place = {number: index for index, number in enumerate(classes)}
    result: dict[int, int] = {}
    for entry in root.entries("annotations", "annotation"):
        image, category = entry.integer("image_id"), entry.integer("category_id")
        if category not in place:
            entry.fail(f"category_id {category}: there is no category with this id")
        if image in result:
            raise AnnotationError(entry.file, entry.name, f"image {image} has another annotation already")
        result[image] = place[category]
    return result
