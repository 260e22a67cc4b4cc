"""YOLO text files: a line for each object, in fractions of the image: boxes, polygons, or boxes with keypoints.

It reads the layouts of Ultralytics (data.yaml), Roboflow, Label Studio (classes.txt) and CVAT (obj.names). An image
without a file has no objects.
"""

from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float64

from moco.data.sources.images import DataError
from moco.text import escape
from moco.transfer import masks
from moco.transfer.optional_packages import require
from moco.transfer.readers.entries import AnnotationError, JsonObject, read_text
from moco.transfer.readers.images import images_below, is_image, size_of
from moco.transfer.readers.shared import Annotation, ReadOptions, SkippedAnnotations, objects_of, split_error
from moco.transfer.scenes import Scene, SceneSet

DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
NAMES = ("classes.txt", "obj.names")
SPLITS = ("train", "val", "valid", "test")
SLACK = 0.01  # fractions may be below 0 or above 1 by this much, because tools round


class Description(NamedTuple):
    """The content of the file that describes the data set."""

    classes: tuple[str, ...]
    splits: dict[str, list[str]]  # folders or lists of images, as in the file
    keypoints: int  # of an object
    numbers: int  # of a keypoint: 2, or 3 with the visibility


def recognises(path: Path) -> bool:
    """A folder with data.yaml or with names of classes beside text files, or the data.yaml itself."""
    file = _description_file(path)
    return file is not None and (file.name not in NAMES or any(file.parent.rglob("*.txt")))


def read(path: Path, options: ReadOptions) -> SceneSet:
    """The scenes of a split, sorted by the paths of their images.

    `options.split`: a key of data.yaml (`train`, `val`, `test`), or a folder with that name. It must be given if there
    are several.

    Raises:
        AnnotationError: an annotation cannot be used; the message has its file and line.
        DataError: there is no such split, or no image has a text file.
    """
    file = _description_file(path)
    if file is None:
        raise DataError(f"{escape(str(path))} has neither data.yaml nor one of {', '.join(NAMES)}")
    described, skipped = _describe(file), SkippedAnnotations(options.skip_bad)
    if options.classes not in (None, described.classes):
        raise AnnotationError(
            file, "", f"has the classes {', '.join(described.classes)}; expected {', '.join(options.classes)}"
        )
    images = images_below(options.images) if options.images else _images(file, described, options.split)
    labels = [_label_file(image) for image in images]
    if images and not any(label.is_file() for label in labels):
        raise DataError(f"no image has a text file: expected {escape(str(labels[0]))}, ...")
    sizes = [size_of(image) for image in images]
    found = [
        _annotations(label, size, described, skipped) if label.is_file() else []
        for label, size in zip(labels, sizes, strict=True)
    ]
    has_masks = any(one.mask is not None for annotations in found for one in annotations)
    objects = [objects_of(annotations, masks=has_masks, keypoints=described.keypoints) for annotations in found]
    scenes = [
        Scene(image, _name(image, file.parent), *size, of_image)
        for image, size, of_image in zip(images, sizes, objects, strict=True)
    ]
    points = tuple(f"point {number + 1}" for number in range(described.keypoints))
    ids = tuple(range(len(described.classes)))
    return SceneSet(described.classes, tuple(scenes), ids, points, skipped=tuple(skipped.reasons))


def _description_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml") else None
    return next((path / name for name in (*DESCRIPTIONS, *NAMES) if (path / name).is_file()), None)


def _describe(file: Path) -> Description:
    if file.name in NAMES:
        classes = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
        if not classes:
            raise AnnotationError(file, "", "names no classes: expected one in each line")
        return Description(classes, {}, 0, 0)
    root = JsonObject(_yaml(file), file, "")
    shape = root.numbers("kpt_shape", 2) if root.has("kpt_shape") else np.zeros(2)
    if root.has("kpt_shape") and (shape[1] not in (2, 3) or not 1 <= shape[0] <= 1000 or shape[0] % 1):
        root.fail(f"kpt_shape must be the number of keypoints and 2 or 3, got {shape.tolist()}")
    splits = {name: _texts(root, name) for name in SPLITS if root.has(name)}
    base = root.text("path") if root.has("path") else ""
    splits = {name: [f"{base}/{place}" if base else place for place in places] for name, places in splits.items()}
    return Description(_class_names(root), splits, int(shape[0]), int(shape[1]))


def _yaml(file: Path) -> Any:
    yaml = require("yaml", task="a data.yaml")
    try:
        return yaml.safe_load(read_text(file))
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise AnnotationError(file, "", f"not valid YAML ({str(error)[:100]})") from error


def _class_names(root: JsonObject) -> tuple[str, ...]:
    """The class names from `names`, which is a list, or a mapping from numbers."""
    names = root.raw("names")
    if isinstance(names, dict):
        if {*names} != {*range(len(names))}:
            root.fail(f"names must be numbered from 0 without gaps, got {sorted(map(str, names))[:20]}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int) for name in names):
        root.fail("names must be a list of class names")
    return tuple(map(str, names))


def _texts(root: JsonObject, key: str) -> list[str]:
    values = root.raw(key)
    values = values if isinstance(values, list) else [values]
    if not all(isinstance(value, str) and value for value in values):
        root.fail(f"{key} must be a path or a list of paths")
    return values


def _images(file: Path, described: Description, split: str | None) -> list[Path]:
    """The images of a split. Raises DataError with the splits that exist."""
    root = file.parent
    folders = {name: [root / name] for name in SPLITS if (root / name).is_dir()}
    folders |= {name: [root / "images" / name] for name in SPLITS if (root / "images" / name).is_dir()}
    described_places = {
        name: [_place(root, text, file, name) for text in texts]
        for name, texts in described.splits.items()
        if split in (None, name)
    }
    places = {**folders, **described_places}
    if not places:
        if split is None:
            return images_below(root / "images" if (root / "images").is_dir() else root)
        raise DataError(f"{escape(str(root))} has no splits, and {escape(split)} was given: leave the split out")
    if (split is None and len(places) > 1) or (split is not None and split not in places):
        raise split_error(root, {**described.splits, **places}, split)
    chosen = places[split] if split is not None else next(iter(places.values()))
    images = [image for place in chosen for image in _below(place, root)]
    return sorted(set(images), key=lambda image: image.as_posix())


def _place(root: Path, text: str, file: Path, split: str) -> Path:
    """The folder or list at a path in data.yaml. If it is a path of another machine, its longest end that exists."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for first in range(len(parts)):
        place = root.joinpath(*parts[first:])
        if place.exists():
            return place
    raise AnnotationError(file, split, f"there is no {escape(text)} in {escape(str(root))}")


def _below(place: Path, root: Path) -> list[Path]:
    """The images in a folder, or in a list of images."""
    if place.is_dir():
        return images_below(place)
    images: list[Path] = []
    for number, line in enumerate(read_text(place).splitlines(), 1):
        if line.strip():
            image = _place(root, line.strip(), place, f"line {number}")
            if not is_image(image.name):
                raise AnnotationError(place, f"line {number}", f"{escape(line.strip())} is not an image file")
            images.append(image)
    return images


def _label_file(image: Path) -> Path:
    """The text file of an image: beside it, or in `labels` if the image is in `images`."""
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        elsewhere = Path(*parts).with_suffix(".txt")
        if elsewhere.is_file() or not image.with_suffix(".txt").is_file():
            return elsewhere
    return image.with_suffix(".txt")


def _name(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name


def _annotations(
    file: Path, size: tuple[int, int], described: Description, skipped: SkippedAnnotations
) -> list[Annotation]:
    found = [
        skipped.attempt(lambda number=number, line=line: _annotation(file, number, line.split(), size, described))
        for number, line in enumerate(read_text(file).splitlines(), 1)
        if line.strip()
    ]
    return [one for one in found if one is not None]


def _annotation(file: Path, number: int, texts: list[str], size: tuple[int, int], described: Description) -> Annotation:
    values = _numbers(file, number, texts)
    label, rest = values[0], values[1:]
    if label % 1 or not 0 <= label < len(described.classes):
        _fail(file, number, f"there is no class {texts[0]}; expected 0 to {len(described.classes) - 1}")
    points = described.keypoints * described.numbers
    scale = np.array(size, dtype=np.float64)
    name = f"{file.name}, line {number}"
    if points and len(rest) == 4 + points:
        keypoints = _keypoints(file, number, rest[4:].reshape(described.keypoints, described.numbers), scale)
        box = _box(file, number, rest[:4], scale)
        return Annotation(name, box, int(label), _area(box), keypoints=keypoints)
    if len(rest) == 4:
        box = _box(file, number, rest, scale)
        return Annotation(name, box, int(label), _area(box))
    if points or len(rest) < 6 or len(rest) % 2:
        kinds = f"4 or {4 + points}" if points else "4 (a box), or x and y of at least 3 points,"
        _fail(file, number, f"has {len(rest)} numbers after the class; expected {kinds}")
    _check_fractions(file, number, rest)
    polygon = (rest.reshape(-1, 2) * scale).reshape(-1)
    if problem := masks.problem_of(polygon):
        _fail(file, number, problem)
    return Annotation(name, masks.box_around((polygon,)), int(label), masks.area_of((polygon,)), mask=(polygon,))


def _numbers(file: Path, number: int, texts: list[str]) -> Float64[np.ndarray, "n"]:
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        values = np.full(1, np.nan)
    if not np.isfinite(values).all():
        _fail(file, number, f"expected finite numbers, got {' '.join(texts)[:60]!r}")
    return values


def _check_fractions(file: Path, number: int, values: Float64[np.ndarray, "n"]) -> None:
    low, high = values.min(), values.max()
    if low < -SLACK or high > 1 + SLACK:
        _fail(file, number, f"expected fractions of the image from 0 to 1, got {low if low < -SLACK else high:g}")


def _box(
    file: Path, number: int, values: Float64[np.ndarray, "4"], scale: Float64[np.ndarray, "2"]
) -> Float64[np.ndarray, "4"]:
    """The corners of a box [pixels], from its centre and size."""
    _check_fractions(file, number, values)
    if values[2] < 0 or values[3] < 0:
        _fail(file, number, f"the box has the negative size {values[2]:g} x {values[3]:g}")
    centre, half = values[:2] * scale, values[2:] * scale / 2
    return np.concatenate([centre - half, centre + half])


def _keypoints(
    file: Path, number: int, values: Float64[np.ndarray, "K d"], scale: Float64[np.ndarray, "2"]
) -> Float64[np.ndarray, "K 3"]:
    """Keypoints [pixels] with visibility. If the file has no visibility, a point at 0, 0 counts as not labelled."""
    _check_fractions(file, number, values[:, :2].reshape(-1))
    visible = values[:, 2] if values.shape[1] == 3 else 2.0 * (values > 0).any(1)
    if not np.isin(visible, (0, 1, 2)).all():
        _fail(file, number, "the visibility of a keypoint must be 0, 1 or 2")
    return np.column_stack([values[:, :2] * scale, visible])


def _area(box: Float64[np.ndarray, "4"]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _fail(file: Path, number: int, problem: str) -> NoReturn:
    raise AnnotationError(file, f"line {number}", problem)
