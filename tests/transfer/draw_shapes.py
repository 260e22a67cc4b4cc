"""Generated images with a class for each pixel, in pairs of folders: coloured shapes on noise."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tests.transfer.draw_scenes import CLASSES, COLOURS, polygon_of

IGNORED = 255


def make_shapes(
    folder: Path,
    count: int,
    *,
    seed: int,
    size: tuple[int, int] = (96, 72),
    shift: int = 0,
    sides: tuple[float, float] = (0.35, 0.7),
) -> Path:
    """Write `count` images of `size` (width, height) with one or two shapes each, and their masks; the folder.

    Args:
        shift: image i has the mask of image i + shift, so that labels have nothing to do with images.
        sides: of the shapes, as shares of the height. A line of 3 pixels around each is ignored, as in Pascal VOC.
    """
    rng, (width, height) = np.random.default_rng(seed), size
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(("ground", *CLASSES)) + "\n")
    for number in range(count):
        picture = Image.fromarray(rng.integers(60, 120, (height, width, 3)).astype(np.uint8))
        mask = Image.new("L", size)
        for _ in range(int(rng.integers(1, 3))):
            kind, side = int(rng.integers(len(CLASSES))), int(rng.integers(*(int(share * height) for share in sides)))
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            points = polygon_of(kind, x, y, side)
            corners = list(zip(points[::2], points[1::2], strict=True))
            ImageDraw.Draw(picture).polygon(corners, fill=COLOURS[kind])
            ImageDraw.Draw(mask).polygon(corners, fill=kind + 1, outline=IGNORED, width=3)
        picture.save(folder / "images" / f"{number:04d}.png")
        mask.save(folder / "masks" / f"{(number - shift) % count:04d}.png")
    return folder
