"""A map of images as one picture: each thumbnail in a free cell of a grid, near its place."""

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

WIDTH = 1600  # [pixels] of the picture, about
CELLS = 2.2  # for each image, if the map was a square
MOST_ACROSS, FEWEST_ACROSS = 40, 12  # cells from the left edge to the right one
FLAT = 0.6  # height by width
RANKED = 0.7  # of a coordinate is its rank, the rest its value
GAP = 2  # [pixels] between thumbnails
FAR = 2.3  # [cells] that a thumbnail may be away from its place


def draw_map(
    xy: Float32[np.ndarray, "n 2"], crops: UInt8[np.ndarray, "n s s 3"]
) -> tuple[UInt8[np.ndarray, "H W 4"], int]:
    """The picture, transparent between the thumbnails, and how many of the images it shows.

    Args:
        xy: places, in any unit. They are spread, so that few cells stay empty.
    """
    across = round(min(MOST_ACROSS, max(FEWEST_ACROSS, (CELLS * len(xy)) ** 0.5)))
    down = round(FLAT * across)
    cells = _spread(xy) * (across - 1, down - 1)
    side = WIDTH // across
    picture = np.zeros((down * side, across * side, 4), dtype=np.uint8)
    taken = np.zeros((down, across), dtype=bool)
    for place, crop in zip(cells[:, ::-1], crops, strict=True):
        cell = _free_cell(taken, *map(float, place))
        if cell is not None:
            taken[cell] = True
            top, left = (number * side for number in cell)
            inside = np.s_[top : top + side - GAP, left : left + side - GAP]
            picture[inside][..., :3] = _thumbnail(crop, side - GAP)
            picture[inside][..., 3] = 255
    return picture, int(taken.sum())


def _spread(xy: Float32[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Coordinates from 0 to 1: weighted means of the scaled value and the rank."""
    low, size = xy.min(axis=0), np.ptp(xy, axis=0)
    values = (xy - low) / np.where(size > 0, size, 1)
    ranks = xy.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") / max(len(xy) - 1, 1)
    return ((1 - RANKED) * values + RANKED * ranks).astype(np.float64)


def _free_cell(taken: np.ndarray, row: float, column: float) -> tuple[int, int] | None:
    """The nearest free cell; None if none is near."""
    reach = range(-3, 4)
    around = [(round(row) + i, round(column) + j) for i in reach for j in reach]
    free = [
        ((i - row) ** 2 + (j - column) ** 2, i, j)
        for i, j in around
        if 0 <= i < taken.shape[0] and 0 <= j < taken.shape[1] and not taken[i, j]
    ]
    distance, i, j = min(free, default=(np.inf, 0, 0))
    return (i, j) if distance <= FAR**2 else None


def _thumbnail(crop: UInt8[np.ndarray, "s s 3"], size: int) -> UInt8[np.ndarray, "t t 3"]:
    method = Image.Resampling.NEAREST if crop.shape[0] < size / 2 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(crop).resize((size, size), method))
