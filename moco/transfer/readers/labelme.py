"""LabelMe: a JSON file for each image, with polygons, rectangles, circles and bitmaps."""

import base64
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from PIL import Image

from moco.data.decode.rgb import MAX_PIXELS
from moco.data.sources.images import DataError
from moco.text import escape
from moco.transfer import masks
from moco.transfer.readers.entries import AnnotationError, JsonObject, read_json_object
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.shared import Annotation, ReadOptions, SkippedAnnotations, objects_of, with_class
from moco.transfer.scenes import Mask, Scene, SceneSet

CORNERS_OF_A_CIRCLE = 64
Shape = tuple[str, str, Annotation]  # class, group, object


def recognises(path: Path) -> bool:
    """A folder with JSON files that have `shapes`."""
    return path.is_dir() and any(map(_looks_right, _files(path)[:3]))


def read(path: Path, options: ReadOptions) -> SceneSet:
    """A scene for each JSON file of a folder, sorted by name. The classes are those that occur, sorted.

    Polygons with the same class and group_id are the parts of one object. Rectangles have no mask. Points and lines are
    errors, because they have no area.

    Raises:
        AnnotationError: a shape cannot be used; the message has its file and number.
    """
    if options.split is not None and not (path / options.split).is_dir():
        raise DataError(f"{escape(str(path))} has no folder {escape(options.split)}")
    skipped = SkippedAnnotations(options.skip_bad)
    folder = path if options.split is None else path / options.split
    drafts = [(file, _scene(file, options.images, skipped)) for file in _files(folder)]
    names = {name for _, (_, shapes) in drafts for name, _, _ in shapes}
    classes = options.classes or tuple(sorted(names))
    place = {name: index for index, name in enumerate(classes)}
    has_masks = any(one.mask is not None for _, (_, shapes) in drafts for _, _, one in shapes)
    scenes: list[Scene] = []
    for file, (scene, shapes) in drafts:
        labelled = [
            skipped.attempt(lambda name=name, one=one, file=file: with_class(one, name, place, file))
            for name, one in _joined(shapes)
        ]
        objects = objects_of([one for one in labelled if one is not None], masks=has_masks)
        scenes.append(Scene(scene.path, scene.id, scene.width, scene.height, objects))
    return SceneSet(classes, tuple(scenes), tuple(range(1, len(classes) + 1)), skipped=tuple(skipped.reasons))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))


def _looks_right(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return b'"shapes"' in opened.read(2**16)
    except OSError:
        return False


def _scene(file: Path, folder: Path | None, skipped: SkippedAnnotations) -> tuple[Scene, list[Shape]]:
    root = read_json_object(file)
    width, height = root.integer("imageWidth", least=1), root.integer("imageHeight", least=1)
    if width * height > MAX_PIXELS:
        root.fail(f"an image of {width} x {height} pixels; expected at most {MAX_PIXELS:,}")
    places = ImageFiles([folder] if folder else [file.parent, file.parent.parent / "images", file.parent.parent])
    image = places.find(root.text("imagePath")) or places.with_stem(file.stem)
    if image is None:
        root.fail(
            f"there is no image {escape(root.text('imagePath'))} in {places.describe()}. If the image is inside of the "
            "JSON file, save it as a file beside it"
        )
    shapes = [
        skipped.attempt(lambda entry=entry, place=place: _shape(entry, place, height, width))
        for place, entry in enumerate(root.entries("shapes", "shape"), 1)
    ]
    return Scene(image, file.stem, width, height, objects_of([])), [one for one in shapes if one is not None]


def _shape(entry: JsonObject, place: int, height: int, width: int) -> Shape:
    name, kind = entry.text("label"), entry.text("shape_type") if entry.has("shape_type") else "polygon"
    group = str(entry.integer("group_id")) if entry.has("group_id") else f"alone {place}"
    parts = [entry.check_numbers(point, "a point", 2) for point in entry.list("points")]
    points = np.array(parts).reshape(-1, 2)
    mask: Mask | None = None
    if kind == "rectangle" and len(points) == 2:
        box = np.concatenate([points.min(0), points.max(0)])
    elif kind in ("polygon", "oriented_rectangle"):
        mask = (points.reshape(-1),)
        if problem := masks.problem_of(mask[0]):
            entry.fail(problem)
        box = masks.box_around(mask)
    elif kind == "circle" and len(points) == 2:
        mask = (_circle(points),)
        box = masks.box_around(mask)
    elif kind == "mask" and len(points) == 2:
        mask = _bitmap(entry, points, height, width)
        box = masks.box_of_rle(mask)
    else:
        entry.fail(f"a {kind} of {len(points)} points has no area; expected a polygon, rectangle, circle or mask")
    area = masks.area_of(mask) if mask is not None else float((box[2] - box[0]) * (box[3] - box[1]))
    return name, f"{kind} {group}" if kind != "polygon" else group, Annotation(entry.name, box, 0, area, mask=mask)


def _circle(points: Float64[np.ndarray, "2 2"]) -> Float64[np.ndarray, "xy"]:
    """A circle as a polygon: the first point is its centre, the second one lies on it."""
    centre, radius = points[0], float(np.hypot(*(points[1] - points[0])))
    angles = np.arange(CORNERS_OF_A_CIRCLE) * 2 * np.pi / CORNERS_OF_A_CIRCLE
    return (centre + radius * np.column_stack([np.cos(angles), np.sin(angles)])).reshape(-1)


def _bitmap(entry: JsonObject, points: Float64[np.ndarray, "2 2"], height: int, width: int) -> masks.Rle:
    """A mask from a PNG in base64 that covers the box between the points, including the last pixels."""
    left, top = np.floor(points.min(0)).astype(int).tolist()
    try:
        data = base64.b64decode(entry.text("mask"), validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            drawn = np.asarray(image.convert("L")) > 0
    except AnnotationError:
        raise
    except Exception as error:  # Pillow raises nearly everything
        raise AnnotationError(entry.file, entry.name, f"its mask is not a PNG in base64 ({str(error)[:60]})") from error
    if left < 0 or top < 0 or left + drawn.shape[1] > width or top + drawn.shape[0] > height:
        entry.fail(f"its mask of {drawn.shape[1]} x {drawn.shape[0]} pixels at {left}, {top} extends beyond the image")
    whole = np.zeros((height, width), dtype=bool)
    whole[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return masks.rle_of_bitmap(whole)


def _joined(shapes: list[Shape]) -> list[tuple[str, Annotation]]:
    """The classes and objects. Polygons of one class and group are joined to one object, in the place of the first."""
    objects: dict[tuple[str, str], Annotation] = {}
    for place, (name, group, one) in enumerate(shapes):
        key = (name, group)
        before = objects.get(key)
        if before is not None and isinstance(before.mask, tuple) and isinstance(one.mask, tuple):
            mask = before.mask + one.mask
            area = masks.area_of(mask)
            objects[key] = before._replace(mask=mask, box=masks.box_around(mask), area=area)
        else:
            objects[key if before is None else (name, f"{group}, {place}")] = one
    return [(name, one) for (name, _), one in objects.items()]
