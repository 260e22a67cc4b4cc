"""Folders in the format of Cityscapes."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.transfer.sample_voc import picture

SIDES = (60, 40)  # width, height


def write_png(path: Path, values: np.ndarray) -> Path:
    """Values of more than 8 bits as PNG of 16 bits, as the true files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16 if values.max() > 255 else np.uint8)).save(path)
    return path


def random_ids(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """An image of instanceIds: surfaces, void, groups and objects of all sizes, some cut by others."""
    ids = np.full((height, width), 7)
    for number in range(int(rng.integers(3, 12))):
        kind = int(rng.choice([24, 24, 26, 26, 26, 33, 11, 0, 29]))
        is_object = kind in (24, 26, 33) and rng.random() < 0.8
        y, x = int(rng.integers(0, height - 2)), int(rng.integers(0, width - 2))
        h, w = int(rng.integers(2, height)), int(rng.integers(2, width))
        ids[y : y + h, x : x + w] = kind * 1000 + number if is_object else kind
    return ids


def add(root: Path, city: str, number: int, ids: np.ndarray, split: str = "val") -> Path:
    """An image and its two files; the folder gtFine of the city."""
    name = f"{city}_{number:06d}_000019"
    height, width = ids.shape
    picture(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", width, height)
    folder = root / "gtFine" / split / city
    write_png(folder / f"{name}_gtFine_instanceIds.png", ids)
    write_png(folder / f"{name}_gtFine_labelIds.png", np.where(ids >= 1000, ids // 1000, ids))
    return folder
