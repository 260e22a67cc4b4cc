"""The generated scenes of `scenes_made` in the formats of LVIS and Cityscapes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from moco.transfer.scenes import SceneSet
from tests.transfer.scenes_made import make_scenes

FREQUENCIES = ("f", "c", "r")  # of box, disc and triangle
KINDS = (26, 24, 33)  # car, person and bicycle for the same


def make_lvis(folder: Path, count: int, *, seed: int, **options: Any) -> Path:
    """LVIS v1: addresses for names, frequencies, and in each image the classes that are known to be absent."""
    file = make_scenes(folder / "val2017", count, seed=seed, **options)
    content = json.loads(file.read_text())
    for one, frequency in zip(content["categories"], FREQUENCIES, strict=True):
        one["frequency"] = frequency
    for image in content["images"]:
        there = {one["category_id"] for one in content["annotations"] if one["image_id"] == image["id"]}
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image.pop('file_name')}"
        image["neg_category_ids"], image["not_exhaustive_category_ids"] = sorted({1, 2, 3} - there), []
    (folder / "lvis_v1_val.json").write_text(json.dumps(content))
    return folder / "lvis_v1_val.json"


def make_cityscapes(folder: Path, count: int, *, seed: int, split: str = "train", **options: Any) -> Path:
    """leftImg8bit and gtFine with one city; later shapes cover earlier ones."""
    file = make_scenes(folder / "plain" / split, count, seed=seed, **options)
    content = json.loads(file.read_text())
    images, truth = folder / "leftImg8bit" / split / "town", folder / "gtFine" / split / "town"
    for place in (images, truth):
        place.mkdir(parents=True)
    for image in content["images"]:
        name = f"town_{image['id']:06d}_000019"
        ids = Image.new("I", (image["width"], image["height"]), 7)
        shapes = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        for number, one in enumerate(shapes):
            points = one["segmentation"][0]
            value = 1000 * KINDS[one["category_id"] - 1] + number
            ImageDraw.Draw(ids).polygon(list(zip(points[::2], points[1::2], strict=True)), fill=value)
        (file.parent / image["file_name"]).rename(images / f"{name}_leftImg8bit.png")
        Image.fromarray(np.array(ids).astype(np.uint16)).save(truth / f"{name}_gtFine_instanceIds.png")
    return folder


def shuffled(scenes: SceneSet) -> SceneSet:
    """The same images, each with the annotations of the next one."""
    others = [*scenes.scenes[1:], scenes.scenes[0]]
    pairs = zip(scenes.scenes, others, strict=True)
    return replace(scenes, scenes=tuple(replace(other, path=own.path, id=own.id) for own, other in pairs))
