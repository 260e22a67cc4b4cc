"""One annotation of a COCO file: its box, mask and keypoints, checked."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from moco.transfer import masks
from moco.transfer.readers.entries import AnnotationError, JsonObject, describe_value
from moco.transfer.readers.shared import Annotation
from moco.transfer.scenes import Mask, Rle


class Picture(NamedTuple):
    """One entry of `images`."""

    entry: JsonObject
    id: int | str
    width: int
    height: int


def annotation_of(
    entry: JsonObject, sizes: dict[int | str, Picture], place: dict[int, int], keypoints: int, seen: set[int | str]
) -> tuple[int | str, Annotation | None]:
    """Check an annotation. Returns the id of its image and the annotation.

    Args:
        sizes: the images by id.
        place: index of each category, by id.
        keypoints: their number; 0 if the file has none.
        seen: the ids of earlier annotations; this one's is added.
    """
    identity = entry.identity() if entry.has("id") else entry.name
    if identity in seen:
        entry.fail("another annotation has the same id")
    seen.add(identity)
    image, category = entry.identity("image_id"), entry.integer("category_id")
    if image not in sizes:
        entry.fail(f"image_id {describe_value(image)}: there is no image with this id")
    if category not in place:
        entry.fail(f"category_id {category}: there is no category with this id")
    mask = mask_of(entry, sizes[image].height, sizes[image].width)
    box = read_box(entry) if entry.has("bbox") or mask is None else _box_of_mask(mask)
    extent = masks.area_of(mask) if mask is not None else float((box[2] - box[0]) * (box[3] - box[1]))
    area = entry.number("area") if entry.has("area") else extent
    if area < 0:
        entry.fail(f"area must not be negative, got {area:g}")
    crowd = bool(entry.integer("iscrowd", least=0, most=1)) if entry.has("iscrowd") else False
    points = _keypoints(entry, keypoints) if keypoints and entry.has("keypoints") else None
    return image, Annotation(entry.name, box, place[category], area, crowd, mask=mask, keypoints=points)


def read_box(entry: JsonObject) -> Float64[np.ndarray, "4"]:
    """The corners of a box, from x, y, width and height."""
    x, y, width, height = entry.numbers("bbox", 4)
    if width < 0 or height < 0:
        entry.fail(f"bbox has the negative size {width:g} x {height:g}")
    return np.array([x, y, x + width, y + height])


def mask_of(entry: JsonObject, height: int, width: int) -> Mask | None:
    """The mask in an image of that size; None if the segmentation is empty, as some tools write it for boxes."""
    value = entry.value.get("segmentation")
    if value is None or value == [] or value == [[]]:
        return None
    if isinstance(value, list):
        parts = [entry.check_numbers(part, "a polygon of segmentation") for part in value]
        for part in parts:
            if problem := masks.problem_of(part):
                entry.fail(problem)
        return tuple(parts)
    return run_length_of(JsonObject(value, entry.file, entry.name), height, width)


def run_length_of(entry: JsonObject, height: int, width: int) -> Rle:
    """The run-length mask of that size, from `size`, and `counts` as text or numbers."""
    size = entry.numbers("size", 2)
    if tuple(size) != (height, width):
        entry.fail(f"the mask has {size[0]:g} x {size[1]:g} pixels, its image {height} x {width} (height x width)")
    counts = entry.raw("counts")
    try:
        if isinstance(counts, str):
            return masks.rle_of_text(height, width, counts)
        runs = entry.check_numbers(counts, "counts") if counts != [] else np.zeros(0)
        if (runs % 1 != 0).any():
            entry.fail("counts must be whole numbers")
        return masks.rle_of_runs(height, width, runs.astype(np.int64))
    except AnnotationError:
        raise
    except ValueError as error:
        entry.fail(str(error))


def _box_of_mask(mask: Mask) -> Float64[np.ndarray, "4"]:
    return masks.box_of_rle(mask) if isinstance(mask, Rle) else masks.box_around(mask)


def _keypoints(entry: JsonObject, count: int) -> Float64[np.ndarray, "K 3"]:
    points = entry.numbers("keypoints", 3 * count).reshape(count, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        entry.fail("the visibility of a keypoint must be 0, 1 or 2")
    return points
