"""Generated images of one shape each, in class folders: polygons and a star of any size, place, angle and colour."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CORNERS = {"triangle": 3, "square": 4, "pentagon": 5, "star": 10}


def outline(name: str, centre: np.ndarray, radius: float, angle: float) -> list[tuple[float, float]]:
    corners = CORNERS[name]
    angles = angle + np.arange(corners) * 2 * np.pi / corners
    radii = np.where((np.arange(corners) % 2 == 1) & (name == "star"), 0.4 * radius, radius)
    return [tuple(point) for point in centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]]


def make_shapes(
    folder: Path, each: int, *, seed: int, size: int = 48, shuffled: bool = False, turned: bool = True
) -> Path:
    """Write `each` images of each class into `folder`.

    Args:
        shuffled: the shape has nothing to do with the class.
        turned: shapes have any angle; otherwise they are upright.
    """
    rng = np.random.default_rng(seed)
    for name in CORNERS:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            seen = list(CORNERS)[int(rng.integers(len(CORNERS)))] if shuffled else name
            picture = Image.fromarray(rng.integers(60, 120, (size, size, 3)).astype(np.uint8))
            radius = rng.uniform(0.25, 0.4) * size
            points = outline(seen, rng.uniform(radius, size - radius, 2), radius, turned * rng.uniform(0, 2 * np.pi))
            ImageDraw.Draw(picture).polygon(points, fill=tuple(map(int, rng.integers(130, 255, 3))))
            picture.save(folder / name / f"{number:04d}.png")
    return folder
