"""COCO JSON: boxes, polygons, run-length masks, crowds and keypoints in one file.

It also reads what Label Studio, CVAT and Roboflow write: empty segmentations, ids from 0, paths of other machines, and
a category without objects that groups the others.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from moco.text import escape
from moco.transfer.readers.coco_objects import Picture, annotation_of
from moco.transfer.readers.entries import JsonObject, describe_value, read_json_object
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.shared import Annotation, ReadOptions, SkippedAnnotations, objects_of, split_error
from moco.transfer.scenes import Scene, SceneSet

ROBOFLOW = "_annotations.coco.json"
MOST_KEYPOINTS = 1000  # of an object
LARGEST_SIDE = 1_000_000  # [pixels] of an image, at most


class Categories(NamedTuple):
    """The classes of a file, in the order of their ids as in Detectron2."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    keypoints: tuple[str, ...]

    @property
    def place(self) -> dict[int, int]:
        return {number: index for index, number in enumerate(self.ids)}


def file_name(image: JsonObject) -> str:
    """The name of an image's file, as COCO has it."""
    return image.text("file_name")


def recognises(path: Path) -> bool:
    """A JSON file with `images` and `categories`, or a folder with annotations in a usual place."""
    return bool(find_annotation_files(path))


def find_annotation_files(path: Path) -> dict[str, Path]:
    """The possible annotation files at `path`, by the split in their names."""
    if path.is_file():
        return {"": path} if path.suffix.lower() == ".json" else {}
    found = {file.parent.name: file for file in sorted(path.glob(f"*/{ROBOFLOW}"))}
    found |= {"": path / ROBOFLOW} if (path / ROBOFLOW).is_file() else {}
    for folder in (path / "annotations", path):
        found = found or {file.stem: file for file in sorted(folder.glob("*.json")) if not file.name.startswith(".")}
    return {split: file for split, file in found.items() if _looks_right(file)}


def read(path: Path, options: ReadOptions) -> SceneSet:
    """The scenes of a file in the order of their ids, numbers before texts.

    `options.split`: the name of a file in `annotations/` without `.json` (`instances_val2017`), or its end
    (`val2017`); for Roboflow the name of the folder.

    Raises:
        AnnotationError: an annotation cannot be used; the message has its file and id.
        DataError: there is no such split.
    """
    return read_content(read_json_object(choose_split_file(find_annotation_files(path), options.split, path)), options)


def read_content(
    root: JsonObject, options: ReadOptions, *, name_of: Callable[[JsonObject], str] = file_name
) -> SceneSet:
    """The scenes of one file's content. `name_of` returns the name of an image's file."""
    skipped = SkippedAnnotations(options.skip_bad)
    categories = categories_of(root, options)
    pictures = pictures_of(root)
    found: dict[int | str, list[Annotation]] = {picture.id: [] for picture in pictures}
    sizes = {picture.id: picture for picture in pictures}
    place, seen = categories.place, set[int | str]()
    for entry in root.entries("annotations", "annotation"):
        result = skipped.attempt(
            lambda entry=entry: annotation_of(entry, sizes, place, len(categories.keypoints), seen)
        )
        if result is not None and result[1] is not None:
            found[result[0]].append(result[1])
    has_masks = any(one.mask is not None for of_image in found.values() for one in of_image)
    paths = find_image_paths(pictures, root.file, options.images, name_of)
    scenes = [
        Scene(
            paths[picture.id], picture.id, picture.width, picture.height,
            objects_of(found[picture.id], masks=has_masks, keypoints=len(categories.keypoints)),
        )
        for picture in pictures
    ]  # fmt: skip
    return SceneSet(
        categories.names, tuple(scenes), categories.ids, categories.keypoints, skipped=tuple(skipped.reasons)
    )


def choose_split_file(files: dict[str, Path], split: str | None, path: Path) -> Path:
    """The file of a split. Raises DataError with the splits that exist."""
    if split is not None:
        matching = [name for name in files if name == split] or [name for name in files if name.endswith(f"_{split}")]
        if len(matching) == 1:
            return files[matching[0]]
    if split is not None or len(files) != 1:
        raise split_error(path, files, split)
    return next(iter(files.values()))


def categories_of(root: JsonObject, options: ReadOptions) -> Categories:
    """The classes. A category that groups others and has no objects (Roboflow's first one) is left out."""
    entries = list(root.entries("categories", "category"))
    if not entries:
        root.fail("has no categories")
    by_id = {entry.integer("id"): entry for entry in entries}
    if len(by_id) < len(entries):
        root.fail(f"two categories have the same id: {[entry.integer('id') for entry in entries][:20]}")
    groups = {
        entry.value.get("supercategory") for entry in entries if isinstance(entry.value.get("supercategory"), str)
    }
    if any(entry.value.get("supercategory") == "none" and entry.text("name") in groups for entry in entries):
        used = {value.get("category_id") for value in root.list("annotations") if isinstance(value, dict)}
        by_id = {
            number: entry for number, entry in by_id.items()
            if number in used or entry.value.get("supercategory") != "none" or entry.text("name") not in groups
        }  # fmt: skip
    ids = tuple(sorted(by_id))
    names = tuple(by_id[number].text("name") for number in ids)
    if options.classes is not None:
        ids = tuple(_ordered(root, ids, names, options.classes))
        names = options.classes
    points = {tuple(_keypoint_names(by_id[number])) for number in ids if by_id[number].has("keypoints")}
    if len(points) > 1:
        root.fail("categories have different keypoints; expected the same for all")
    return Categories(names, ids, next(iter(points), ()))


def pictures_of(root: JsonObject) -> list[Picture]:
    """The images, ordered by id."""
    pictures = [
        Picture(
            entry,
            entry.identity(),
            entry.integer("width", least=1, most=LARGEST_SIDE),
            entry.integer("height", least=1, most=LARGEST_SIDE),
        )
        for entry in root.entries("images", "image")
    ]
    pictures.sort(key=lambda picture: (isinstance(picture.id, str), picture.id))
    for one, other in itertools.pairwise(pictures):
        if one.id == other.id:
            other.entry.fail("another image has the same id")
    return pictures


def find_image_paths(
    pictures: list[Picture], file: Path, folder: Path | None, name_of: Callable[[JsonObject], str]
) -> dict[int | str, Path]:
    """The file of each image: in `folder`, or where COCO and the tools put images relative to the annotations."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    split = file.stem.rpartition("_")[2]
    below = [root / split, root / "images" / split, root / "images", root, file.parent]
    files = ImageFiles([folder] if folder else [place for place in below if place.is_dir()])
    paths: dict[int | str, Path] = {}
    taken: dict[Path, int | str] = {}
    for picture in pictures:
        name = name_of(picture.entry)
        path = files.find(name)
        if path is None:
            picture.entry.fail(f"there is no file {escape(name)} in {files.describe()}")
        if path in taken:
            picture.entry.fail(f"{escape(str(path))} is the file of image {taken[path]} too")
        paths[picture.id] = path
        taken[path] = picture.id
    return paths


def ends_of(file: Path) -> bytes:
    """The first and the last bytes of a file, which may be large; empty if it cannot be read."""
    try:
        with file.open("rb") as opened:
            start = opened.read(2**16)
            size = opened.seek(0, 2)
            opened.seek(max(size - 2**16, 0))
            return start + opened.read()
    except OSError:
        return b""


def _looks_right(file: Path) -> bool:
    ends = ends_of(file)
    return ends.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and any(
        key in ends for key in (b'"annotations"', b'"images"', b'"categories"')
    )


def _ordered(root: JsonObject, ids: tuple[int, ...], names: tuple[str, ...], classes: tuple[str, ...]) -> list[int]:
    """The ids in the order of `classes`."""
    number = dict(zip(names, ids, strict=True))
    if missing := [name for name in classes if name not in number]:
        root.fail(f"has no category {missing[0]}; it has {', '.join(names)}")
    if extra := [name for name in names if name not in classes]:
        root.fail(f"has the category {extra[0]}; expected only the classes {', '.join(classes)}")
    return [number[name] for name in classes]


def _keypoint_names(category: JsonObject) -> list[str]:
    names = category.list("keypoints")
    if len(names) > MOST_KEYPOINTS or not all(isinstance(name, str) for name in names):
        category.fail(f"keypoints must be a list of names, got {describe_value(names)}")
    return names
