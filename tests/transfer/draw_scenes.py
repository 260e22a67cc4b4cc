"""Generated scenes in COCO's format: coloured boxes, discs and triangles on noise, apart or overlapping."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ((220, 60, 60), (60, 220, 60), (60, 60, 220))
CLASSES = ("box", "disc", "triangle")


def polygon_of(kind: int, x: int, y: int, side: int) -> list[float]:
    """The outline of a shape, x0 y0 x1 y1 ..."""
    if kind == 0:
        return [x, y, x + side, y, x + side, y + side, x, y + side]
    if kind == 1:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return (circle * side / 2 + [x + side / 2, y + side / 2]).ravel().tolist()
    return [x + side / 2, y, x + side, y + side, x, y + side]


def make_scenes(folder: Path, count: int, *, seed: int, size: tuple[int, int] = (128, 96), most: int = 3) -> Path:
    """Write `count` images of `size` (width, height) and annotations.json; the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, (width, height) = np.random.default_rng(seed), size
    images, annotations = [], []
    for number in range(count):
        picture = Image.fromarray((rng.integers(60, 120, (height, width, 3))).astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        for _ in range(int(rng.integers(1, most + 1))):
            kind, side = int(rng.integers(len(CLASSES))), int(rng.integers(height // 5, height // 2))
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            points = polygon_of(kind, x, y, side)
            draw.polygon(list(zip(points[::2], points[1::2], strict=True)), fill=COLOURS[kind])
            annotations.append({
                "id": len(annotations) + 1, "image_id": number + 1, "category_id": kind + 1, "iscrowd": 0,
                "bbox": [x, y, side, side], "area": side * side, "segmentation": [points],
            })  # fmt: skip
        name = f"{number:04d}.png"
        picture.save(folder / name)
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"
