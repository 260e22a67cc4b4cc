"""Pictures for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_pictures(folder: Path, n: int, *, side: int = 20, seed: int = 0, classes: int = 0) -> Path:
    """`n` PNG files of noise over a colour that tells the class, in class folders if there are classes."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        label = i % max(classes, 1)
        colour = np.array([[230, 30, 30], [30, 200, 30], [30, 30, 230], [200, 200, 30]][label % 4])
        pixels = np.clip(colour + rng.normal(0, 40, (side, side + 4, 3)), 0, 255).astype(np.uint8)
        place = folder / f"class{label}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i:04d}.png")
    return folder
