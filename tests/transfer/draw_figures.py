"""Generated figures with keypoints in COCO's format: light boxes with a red, a green and a blue spot, on noise."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SPOTS = {"red": (0.2, 0.2), "green": (0.8, 0.3), "blue": (0.4, 0.8)}  # the mean place of each in the box
WANDER = 0.15  # how far a spot can be from its mean place, as a share of the box


def make_figures(folder: Path, count: int, *, seed: int, size: tuple[int, int] = (96, 72)) -> Path:
    """Write `count` images of `size` (width, height) with a figure each, and annotations.json; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, (width, height) = np.random.default_rng(seed), size
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels = rng.integers(60, 120, (height, width, 3)).astype(np.uint8)
        w, h = (int(side) for side in rng.integers(28, 52, 2))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        pixels[y : y + h, x : x + w] = 200
        points = list[float]()
        for channel, place in enumerate(SPOTS.values()):
            across, down = np.asarray(place) + rng.uniform(-WANDER, WANDER, 2)
            column, row = int(x + across * w), int(y + down * h)
            pixels[row - 2 : row + 3, column - 2 : column + 3] = np.eye(3, dtype=np.uint8)[channel] * 255
            points += [column, row, 2]
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")
        images.append({"id": number, "file_name": f"{number:04d}.png", "width": width, "height": height})
        annotations.append({
            "id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": [x, y, w, h], "area": w * h,
            "keypoints": points, "num_keypoints": len(SPOTS),
        })  # fmt: skip
    categories = [{"id": 1, "name": "figure", "keypoints": list(SPOTS)}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"
