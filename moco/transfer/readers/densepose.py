"""DensePose-COCO: COCO JSON whose persons have points on the surface of the body, and masks of 14 coarse parts.

A person has dp_x and dp_y (0 to 255 within the box), dp_I (part 1 to 24), dp_U and dp_V (0 to 1), and dp_masks: 14
run-length masks of 256 x 256 pixels over the box, of which some may be empty.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from moco.transfer.masks import bitmap_of_rle
from moco.transfer.readers import coco
from moco.transfer.readers.coco_objects import run_length_of
from moco.transfer.readers.entries import JsonObject, read_json_object
from moco.transfer.readers.shared import ReadOptions, SkippedAnnotations
from moco.transfer.scenes import BodyPoints, Scene, SceneSet

PARTS, COARSE_PARTS, SIDE = 24, 14, 256
NUMBERS = {
    "dp_x": (0, SIDE),
    "dp_y": (0, SIDE),
    "dp_I": (1, PARTS),
    "dp_U": (0, 1),
    "dp_V": (0, 1),
}  # limits


def recognises(path: Path) -> bool:
    """COCO JSON with dp_I in its annotations."""
    return any(b'"dp_I"' in coco.ends_of(file) for file in coco.find_annotation_files(path).values())


def read(path: Path, options: ReadOptions) -> SceneSet:
    """The scenes of a file in the order of their ids, as in `coco.read`. Persons without points have None.

    Raises:
        AnnotationError: an annotation cannot be used; the message has its file and id.
        DataError: there is no such split.
    """
    root = read_json_object(coco.choose_split_file(coco.find_annotation_files(path), options.split, path))
    scenes, skipped = coco.read_content(root, options), SkippedAnnotations(options.skip_bad)
    points: dict[str, BodyPoints] = {}
    for entry in root.entries("annotations", "annotation"):
        if entry.has("dp_I"):
            found = skipped.attempt(lambda entry=entry: _points(entry))
            points |= {} if found is None else {entry.name: found}
    annotated = tuple(_with_points(scene, points) for scene in scenes.scenes)
    return replace(scenes, scenes=annotated, skipped=(*scenes.skipped, *skipped.reasons))


def _with_points(scene: Scene, points: dict[str, BodyPoints]) -> Scene:
    body_points = tuple(points.get(name) for name in scene.objects.ids)
    return replace(scene, objects=replace(scene.objects, body_points=body_points))


def _points(entry: JsonObject) -> BodyPoints:
    values = {key: entry.numbers(key) for key in NUMBERS}
    if len({len(numbers) for numbers in values.values()}) > 1:
        entry.fail(f"{', '.join(NUMBERS)} have different lengths: {[len(numbers) for numbers in values.values()]}")
    for key, (least, most) in NUMBERS.items():
        numbers = values[key]
        if len(numbers) and not (numbers.min() >= least and numbers.max() <= most):
            wrong = numbers.min() if numbers.min() < least else numbers.max()
            entry.fail(f"{key} must lie in {least} to {most}, got {wrong:g}")
    if (values["dp_I"] % 1 != 0).any():
        entry.fail("dp_I must hold whole numbers")
    return BodyPoints(
        values["dp_x"], values["dp_y"], values["dp_I"].astype(np.int64), values["dp_U"], values["dp_V"], _mask(entry)
    )


def _mask(entry: JsonObject) -> np.ndarray:
    """The coarse part of each pixel of the box; where parts overlap, the one with the higher number."""
    masks = entry.list("dp_masks")
    if len(masks) != COARSE_PARTS:
        entry.fail(f"dp_masks must hold {COARSE_PARTS} masks, got {len(masks)}")
    result = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for number, value in enumerate(masks, 1):
        if value:
            result[bitmap_of_rle(run_length_of(JsonObject(value, entry.file, entry.name), SIDE, SIDE))] = number
    return result
