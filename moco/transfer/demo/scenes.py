"""Copy-paste scenes: cut-outs of the demo's garments on backgrounds, with boxes, masks and a class for each pixel.

The cut-outs to test on are those of the demo's test images, and backgrounds of training and test are kept apart.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from moco.data.decode.decode import decode
from moco.data.sources.demo import LONG_AGO
from moco.data.sources.images import DataError
from moco.data.sources.open import open_folder
from moco.files import read_json, write_text
from moco.rng import fold
from moco.transfer.masks import rle_of_bitmap

SCENE_SIDE = 96  # [pixels] of a scene
SCALE = (1.2, 2.4)  # of a garment in the demo's image of 32 x 32 pixels
MOST = 3  # garments in a scene
BLACK = 24  # of a garment's image, up to which a pixel is background
PLACES = 20  # tries to place a garment where it covers no other
PARTS = ("train", "test")
CLASS_OF = {  # the classes of the scenes: kinds of garments that look alike are one class
    "t-shirt": "top", "pullover": "top", "coat": "top", "shirt": "top", "dress": "dress", "trouser": "trousers",
    "sandal": "shoe", "sneaker": "shoe", "ankle-boot": "shoe", "bag": "bag",
}  # fmt: skip
CLASSES = tuple(sorted(set(CLASS_OF.values())))


@dataclass(frozen=True)
class SceneCounts:
    """How many scenes there are of each part."""

    train: int = 400
    test: int = 100


class Cutout(NamedTuple):
    """A garment and where it is in its image."""

    pixels: UInt8[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    label: int


def make_scenes(folder: Path, garments: Path, counts: SceneCounts, *, photos: Path | None) -> None:
    """Write scenes into `folder`, unless they are there: `train.json`, `test.json`, `images/`, `masks/`.

    The JSON files are in COCO's format; `images/`, `masks/` and `classes.txt` are those of semantic segmentation. A
    scene is a function of its part and number alone.

    Args:
        garments: the demo's images, `train/CLASS/*.png` and `test/CLASS/*.png`.
        photos: a folder of photographs for the backgrounds; None: generated clouds of colour.

    Raises:
        DataError: fewer than two photographs.
    """
    made = {
        "counts": asdict(counts), "photos": None if photos is None else str(photos.resolve()), "side": SCENE_SIDE,
        "classes": list(CLASSES),
    }  # fmt: skip
    if read_json(folder / "made.json") == made:
        return
    backgrounds = {part: _backgrounds(photos, test=part == "test") for part in PARTS}
    for part in PARTS:
        source = garments / ("test" if part == "test" else "train")
        files = [
            (path, CLASSES.index(of))
            for name, of in sorted(CLASS_OF.items())
            for path in sorted((source / name).iterdir())
        ]
        scenes = (_scene(part, i, files, backgrounds[part]) for i in range(getattr(counts, part)))
        _write_annotated(folder, part, scenes, CLASSES)
    write_text(folder / "classes.txt", "\n".join(["background", *CLASSES]) + "\n")
    write_text(folder / "made.json", json.dumps(made))


def _write_annotated(
    folder: Path, part: str, scenes: Iterator[tuple[UInt8[np.ndarray, "H W 3"], list[Cutout]]], classes: Sequence[str]
) -> None:
    images, annotations = [], []
    for number, (pixels, objects) in enumerate(scenes):
        name = f"{number:05d}.png"
        _save(folder / "images" / part / name, pixels)
        labels = np.zeros((SCENE_SIDE, SCENE_SIDE), dtype=np.uint8)
        for one in objects:
            labels[one.mask] = one.label + 1
            annotations.append(_annotation(one, number, len(annotations)))
        _save(folder / "masks" / part / name, labels)
        images.append({"id": number, "file_name": f"images/{part}/{name}", "width": SCENE_SIDE, "height": SCENE_SIDE})
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(folder / f"{part}.json", json.dumps(content))


def _annotation(one: Cutout, image: int, number: int) -> dict[str, Any]:
    rows, columns = np.flatnonzero(one.mask.any(axis=1)), np.flatnonzero(one.mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "id": number, "image_id": image, "category_id": one.label, "iscrowd": 0, "area": int(one.mask.sum()),
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "segmentation": {"size": [SCENE_SIDE, SCENE_SIDE], "counts": rle_of_bitmap(one.mask).runs.tolist()},
    }  # fmt: skip


def _scene(
    part: str, number: int, files: Sequence[tuple[Path, int]], background: Callable[[np.random.Generator], Any]
) -> tuple[UInt8[np.ndarray, "H W 3"], list[Cutout]]:
    """The pixels of a scene, and its garments with masks of the scene's size."""
    rng = np.random.default_rng(fold(PARTS.index(part), number))
    pixels: Float32[np.ndarray, "H W 3"] = background(rng)
    taken, objects = np.zeros((SCENE_SIDE, SCENE_SIDE), dtype=bool), []
    for _ in range(int(rng.integers(1, MOST + 1))):
        path, label = files[int(rng.integers(len(files)))]
        cutout = _cutout(path, label, scale=rng.uniform(*SCALE), mirrored=rng.random() < 0.5)
        colour = rng.uniform(0.3, 1, 3).astype(np.float32)
        mask = _place(cutout, taken, rng)
        if mask is not None:
            rows, columns = np.flatnonzero(mask.any(axis=1))[0], np.flatnonzero(mask.any(axis=0))[0]
            height, width = cutout.mask.shape
            patch = pixels[rows : rows + height, columns : columns + width]
            patch[cutout.mask] = (cutout.pixels[..., None] * colour)[cutout.mask]
            taken |= mask
            objects.append(Cutout(cutout.pixels, mask, label))
    return np.clip(pixels, 0, 255).astype(np.uint8), objects


def _cutout(path: Path, label: int, *, scale: float, mirrored: bool) -> Cutout:
    """A garment enlarged, cut to the box around it."""
    pixels = decode(path)[..., 0]
    image = Image.fromarray(pixels[:, ::-1] if mirrored else pixels)
    side = round(scale * image.width)
    large = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    mask = large > BLACK
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Cutout(large[box], mask[box], label)


def _place(cutout: Cutout, taken: Bool[np.ndarray, "H W"], rng: np.random.Generator) -> Bool[np.ndarray, "H W"] | None:
    """Where a garment lies in the scene, apart from all others; None if there is no room."""
    height, width = cutout.mask.shape
    for _ in range(PLACES):
        y, x = int(rng.integers(SCENE_SIDE - height + 1)), int(rng.integers(SCENE_SIDE - width + 1))
        if not taken[y : y + height, x : x + width].any():
            mask = np.zeros_like(taken)
            mask[y : y + height, x : x + width] = cutout.mask
            return mask
    return None


def _backgrounds(photos: Path | None, *, test: bool) -> Callable[[np.random.Generator], Float32[np.ndarray, "H W 3"]]:
    """A function that draws a background. The last quarter of the photographs, by name, is for the test."""
    if photos is None:
        return _clouds
    images = open_folder(photos)
    first = max(1, len(images) * 3 // 4)
    chosen = range(first, len(images)) if test else range(first)
    if not len(chosen):
        raise DataError(f"backgrounds need at least 2 photographs, for training and for the test, got {len(images)}")
    small = [_reduced(images.read(index)) for index in chosen]

    def crop(rng: np.random.Generator) -> Float32[np.ndarray, "H W 3"]:
        photo = small[int(rng.integers(len(small)))]
        y, x = (int(rng.integers(size - SCENE_SIDE + 1)) for size in photo.shape[:2])
        return photo[y : y + SCENE_SIDE, x : x + SCENE_SIDE].astype(np.float32)

    return crop


def _reduced(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph with a shorter side of two scenes."""
    height, width = pixels.shape[:2]
    scale = 2 * SCENE_SIDE / min(height, width)
    size = max(SCENE_SIDE, round(width * scale)), max(SCENE_SIDE, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _clouds(rng: np.random.Generator) -> Float32[np.ndarray, "H W 3"]:
    """Smooth noise of several sizes in random colours."""
    total = np.zeros((SCENE_SIDE, SCENE_SIDE, 3), dtype=np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((SCENE_SIDE, SCENE_SIDE), Image.Resampling.BICUBIC), dtype=np.float32) / cells
    low, high = total.min(), total.max()
    return (total - low) / (high - low) * 255


def _save(file: Path, pixels: UInt8[np.ndarray, "..."]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    os.utime(file, (LONG_AGO, LONG_AGO))  # a run may resume after the scenes were made again
