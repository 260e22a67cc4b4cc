"""Folders of JPEGs to be read, made at run time."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 4
SIDES = (256, 320)  # [pixels] height and width


def jpegs(folder: Path, count: int) -> Path:
    """`folder` with `count` JPEGs in a few class folders, with the coarse and the fine structure of photos."""
    rng, (height, width) = np.random.default_rng(0), SIDES
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = rng.normal(0, 12, (height, width, 1)).astype(np.float32)
        path = folder / f"class{index % CLASSES}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return folder
