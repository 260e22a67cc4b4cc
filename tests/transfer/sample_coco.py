"""COCO JSON files with their images, and random results for them in COCO's result format."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from moco.transfer.masks import rle_of_bitmap
from moco.transfer.predicted_objects import Detections
from moco.transfer.scenes import Rle
from tests.transfer.sample_voc import picture

POINTS = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
          "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
          "right_ankle")  # fmt: skip


def content() -> dict[str, Any]:
    """Two images in the wrong order, and one without objects; ids with gaps; every kind of segmentation."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 139, "file_name": "000000000139.jpg", "width": 20, "height": 10},
            {"id": 9, "file_name": "000000000009.jpg", "width": 30, "height": 40},
            {"id": 25, "file_name": "000000000025.jpg", "width": 8, "height": 8},
        ],
        "annotations": [
            {"id": 17, "image_id": 139, "category_id": 90, "bbox": [1, 2, 3.5, 4], "area": 7.25, "iscrowd": 0,
             "segmentation": [[1, 2, 4.5, 2, 4.5, 6], [1, 2, 1, 6, 2, 6]]},
            {"id": 3, "image_id": 139, "category_id": 3, "bbox": [0, 0, 20, 10], "area": 5, "iscrowd": 1,
             "segmentation": {"size": [10, 20], "counts": [3, 5, 192]}},
            {"id": 900100000025, "image_id": 9, "category_id": 1, "bbox": [5, 5, 0, 0], "area": 0.0, "iscrowd": 0,
             "segmentation": []},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }  # fmt: skip


def write(folder: Path, content: Any, name: str = "instances_val2017.json", images: bool = True) -> Path:
    """`folder`/annotations/`name`, and images/val2017 unless told not to."""
    file = folder / "annotations" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for image in content["images"] if images else ():
        picture(folder / "val2017" / image["file_name"], image["width"], image["height"])
    return file


def decimals(rng: np.random.Generator, low, high, size=None):
    return np.round(rng.uniform(low, high, size), 2)


def random_truth(rng: np.random.Generator) -> dict[str, Any]:
    """A few images with boxes, polygons, crowds and keypoints; ids with gaps, areas that are not those of the boxes."""
    images = [
        {"id": int(number), "file_name": f"{number:012d}.jpg", "width": int(rng.integers(60, 300)),
         "height": int(rng.integers(60, 300))}
        for number in rng.choice(1000, int(rng.integers(2, 6)), replace=False)
    ]  # fmt: skip
    categories = [{"id": number, "name": f"class {number}", "keypoints": POINTS} for number in (2, 3, 17)]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for _ in range(int(rng.integers(0, 7))):
            annotations.append(random_object(rng, image, len(annotations) * 3 + 5))
    annotations = annotations or [random_object(rng, images[0], 1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def random_object(rng: np.random.Generator, image: dict[str, Any], number: int) -> dict[str, Any]:
    width, height = image["width"], image["height"]
    x, y = decimals(rng, 0, width * 0.8), decimals(rng, 0, height * 0.8)
    w, h = decimals(rng, 2, width - x), decimals(rng, 2, height - y)
    crowd = bool(rng.random() < 0.15)
    corners = [x, y, x + w, y, x + w, y + h, x + w * 0.3, y + h]
    polygon = [float(value) for value in np.round(corners, 2)]
    bitmap = np.zeros((height, width), dtype=bool)
    bitmap[int(y) : int(y + h), int(x) : int(x + w)] = True
    runs = rle_of_bitmap(bitmap).runs.tolist()
    points = np.stack([rng.integers(0, width, 17), rng.integers(0, height, 17), rng.integers(0, 3, 17)], 1)
    points[points[:, 2] == 0] = 0
    if rng.random() < 0.2:
        points[:] = 0
    return {
        "id": number, "image_id": image["id"], "category_id": int(rng.choice([2, 3, 17])),
        "bbox": [float(x), float(y), float(w), float(h)], "area": float(np.round(w * h * rng.uniform(0.3, 1), 4)),
        "iscrowd": int(crowd), "keypoints": points.reshape(-1).tolist(), "num_keypoints": int((points[:, 2] > 0).sum()),
        "segmentation": {"size": [height, width], "counts": runs} if crowd else [polygon],
    }  # fmt: skip


def random_results(rng: np.random.Generator, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Detections near objects and elsewhere, with many equal scores."""
    results: list[dict[str, Any]] = []
    for image in truth["images"]:
        mine = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        for _ in range(int(rng.integers(0, 12))):
            near = mine[int(rng.integers(len(mine)))] if mine and rng.random() < 0.8 else random_object(rng, image, 0)
            jitter = np.array(near["bbox"]) * rng.choice([1, 1, 0.9, 0.97, 1.1])
            points = np.array(near["keypoints"], dtype=np.float64).reshape(-1, 3)
            points[:, :2] += np.round(rng.normal(0, rng.choice([0.5, 3, 20]), (17, 2)) * 4) / 4
            results.append({
                "image_id": image["id"], "category_id": int(rng.choice([near["category_id"], 2], p=[0.9, 0.1])),
                "bbox": [float(value) for value in np.round(jitter, 2)], "score": float(np.round(rng.random(), 1)),
                "keypoints": points.reshape(-1).tolist(), "mask": _mask(near, jitter, image),
            })  # fmt: skip
    return results or random_results(rng, truth)


def _mask(near: dict[str, Any], box, image: dict[str, Any]) -> Rle:
    x, y, w, h = box
    bitmap = np.zeros((image["height"], image["width"]), dtype=bool)
    bitmap[int(y) : int(y + h) + 1, int(x) : int(x + w * (0.7 if near.get("iscrowd") else 1)) + 1] = True
    return rle_of_bitmap(bitmap)


def detections(results: list[dict[str, Any]], image: int, ids: tuple[int, ...]) -> Detections:
    """The results of one image as a detector of ours gives them."""
    mine = [one for one in results if one["image_id"] == image]
    corners = [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in mine)]
    points = np.array([one["keypoints"] for one in mine], dtype=np.float64).reshape(len(mine), 17, 3)
    return Detections(
        np.array(corners, dtype=np.float64).reshape(-1, 4),
        np.array([ids.index(one["category_id"]) for one in mine], dtype=np.int64),
        np.array([one["score"] for one in mine], dtype=np.float64),
        tuple(one["mask"] for one in mine),
        points + np.array([0.5, 0.5, 0]),
    )
