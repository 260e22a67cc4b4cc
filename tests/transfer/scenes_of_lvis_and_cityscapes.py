"""The generated scenes of `draw_scenes` in the formats of LVIS and Cityscapes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image, ImageDraw

from moco.transfer.masks import rle_of_bitmap
from moco.transfer.scenes import SceneSet
from tests.transfer.draw_scenes import make_scenes

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


# A body: a rectangle of four parts. U and V rise along its sides, as the green and the blue of its pixels do.
QUARTERS = ((1, 40), (2, 100), (3, 160), (4, 220))  # part, red; columns 0 and 1 of the upper row, then the lower row


def make_bodies(folder: Path, count: int, *, seed: int, size: tuple[int, int] = (128, 96), most: int = 2) -> Path:
    """DensePose-COCO with persons that are such rectangles, on grey noise."""
    (folder / "val2014").mkdir(parents=True)
    rng, (width, height) = np.random.default_rng(seed), size
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
        for column in range(int(rng.integers(1, most + 1))):
            across, down = (int(one) for one in rng.integers(28, 52, 2))
            x, y = int(60 * column + rng.integers(0, 56 - across + 5)), int(rng.integers(0, height - down))
            for place, (_, red) in enumerate(QUARTERS):
                left, top = x + place % 2 * across // 2, y + place // 2 * down // 2
                box = pixels[top : top + (down + 1) // 2, left : left + (across + 1) // 2]
                v, u = np.mgrid[0 : box.shape[0], 0 : box.shape[1]]
                box[:] = np.stack([np.full_like(u, red), 255 * u / (across / 2), 255 * v / (down / 2)], axis=2)
            person = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append(person | {"bbox": [x, y, across, down], "area": across * down, **_points(rng)})
        name = f"COCO_val2014_{number:012d}.png"
        Image.fromarray(pixels).save(folder / "val2014" / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    file = folder / "annotations" / "densepose_coco_2014_val2014.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    return file


def _points(rng: np.random.Generator, count: int = 40) -> dict[str, Any]:
    """Random points of a body, and its quarters as coarse parts 1 to 4."""
    x, y = rng.uniform(2, 253, (2, count))
    part = [QUARTERS[int(a >= 128) + 2 * int(b >= 128)][0] for a, b in zip(x, y, strict=True)]
    masks: list[Any] = []
    for place in range(len(QUARTERS)):
        drawn = np.zeros((256, 256), dtype=bool)
        drawn[place // 2 * 128 :, place % 2 * 128 :][:128, :128] = True
        masks.append({"size": [256, 256], "counts": rle_of_bitmap(drawn).runs.tolist()})
    return {
        "dp_x": x.tolist(), "dp_y": y.tolist(), "dp_I": part, "dp_U": (x % 128 / 128).tolist(),
        "dp_V": (y % 128 / 128).tolist(), "dp_masks": [*masks, *[[]] * (14 - len(masks))],
    }  # fmt: skip


def write_symmetry(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """UV_symmetry_transforms.mat with random tables, in single cells; the tables."""
    rng = np.random.default_rng(0)
    tables = rng.random((2, 24, 256, 256))
    cells = np.empty((2, 1, 24), dtype=object)
    for row, column in np.ndindex(2, 24):
        cells[row, 0, column] = tables[row, column]
    content = {"U_transforms": cells[0], "V_transforms": cells[1]}
    scipy.io.savemat(folder / "UV_symmetry_transforms.mat", content, do_compression=True)
    return tables[0], tables[1]
