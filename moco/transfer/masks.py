"""Object masks: polygons, run lengths and bitmaps. All are checked in Python before C code reads them."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from moco.data.decode.rgb import MAX_PIXELS
from moco.transfer.optional_packages import require
from moco.transfer.scenes import Mask, Polygons, Rle

LONGEST_OUTLINE = 2_000_000  # [pixels]


def rle_of_runs(height: int, width: int, runs: "Int64[np.ndarray, 'n']") -> Rle:
    """A mask from run lengths. Raises ValueError if one is negative or their sum is not the number of pixels."""
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"a mask of {height} x {width} pixels; expected 1 to {MAX_PIXELS:,}")
    if len(runs) and (runs.min() < 0 or runs.max() > height * width):
        raise ValueError(f"a run of {runs.min() if runs.min() < 0 else runs.max():,} pixels in {height} x {width}")
    if runs.sum() != height * width:
        raise ValueError(f"the runs of a mask have {runs.sum():,} pixels; {height} x {width} are {height * width:,}")
    return Rle(height, width, runs.astype(np.uint32))


def rle_of_text(height: int, width: int, text: str | bytes) -> Rle:
    """A mask from COCO's compressed counts. Raises ValueError if they are damaged.

    Each character has 5 bits of a number and one bit that is set if more follow; the highest bit of the last one is the
    sign. From the fourth run on, a number is the difference from the run two positions before.
    """
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    digits = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if len(digits) and (digits.min() < 0 or digits.max() > 63):
        raise ValueError("the compressed counts have an invalid character (expected '0' to 'o')")
    last = np.flatnonzero((digits & 32) == 0)
    if not len(last) or last[-1] != len(digits) - 1:
        raise ValueError("the compressed counts are truncated" if len(digits) else "the compressed counts are empty")
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > 7:  # more bits than a run of uint32 has
        raise ValueError("the compressed counts have a number that is too large")
    place = np.arange(len(digits)) - np.repeat(first, lengths)
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return rle_of_runs(height, width, values)


def problem_of(polygon: "Float64[np.ndarray, 'xy']") -> str | None:
    """Why a polygon cannot be rasterised; None if it can.

    pycocotools would read 4 numbers as a box, and it allocates memory for each pixel of the outline.
    """
    if len(polygon) < 6 or len(polygon) % 2:
        return f"a polygon has {len(polygon)} numbers; expected x and y of at least 3 points"
    points = polygon.reshape(-1, 2)
    with np.errstate(invalid="ignore", over="ignore"):
        outline = float(np.abs(points - np.roll(points, 1, axis=0)).max(1).sum())
    if not outline <= LONGEST_OUTLINE:  # true for NaN too
        return f"the outline of a polygon is {outline:,.0f} pixels long; expected at most {LONGEST_OUTLINE:,}"
    return None


def rle_of_bitmap(bitmap: Bool[np.ndarray, "H W"]) -> Rle:
    height, width = bitmap.shape
    flat = bitmap.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges)
    return rle_of_runs(height, width, np.concatenate([[0], runs]) if flat[0] else runs)


def bitmap_of_rle(rle: Rle) -> Bool[np.ndarray, "H W"]:
    inside = np.arange(len(rle.runs)) % 2 == 1
    return np.repeat(inside, rle.runs).reshape(rle.width, rle.height).T


def rle_dict(mask: Mask, height: int, width: int) -> dict[str, Any]:
    """The mask in an image of that size in the format of pycocotools: `size`, and `counts` in bytes.

    Raises:
        ValueError: a run-length mask of another size than the image.
        ImportError: pycocotools is not installed.
    """
    coco = require("pycocotools.mask", task="a mask")
    if isinstance(mask, Rle):
        if (mask.height, mask.width) != (height, width):
            raise ValueError(f"the mask has {mask.height} x {mask.width} pixels, the image {height} x {width}")
        return coco.frPyObjects({"size": [height, width], "counts": mask.runs.tolist()}, height, width)
    problems = [problem_of(part) for part in mask] if mask else ["a mask without polygons"]
    if any(problems):
        raise ValueError(next(filter(None, problems)))
    return coco.merge(coco.frPyObjects([part.tolist() for part in mask], height, width))


def bitmap(mask: Mask, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The mask in an image of that size. Polygons are rasterised as in COCO. Raises as `rle_dict`."""
    if isinstance(mask, Rle) and (mask.height, mask.width) == (height, width):
        return bitmap_of_rle(mask)
    return bitmap_of_rle(rle_of_text(height, width, rle_dict(mask, height, width)["counts"]))


def area_of(mask: Mask) -> float:
    """The area [pixels], for polygons by the shoelace formula. Overlapping parts count twice."""
    if isinstance(mask, Rle):
        return float(mask.runs[1::2].sum())
    return sum(_shoelace(part) for part in mask)


def box_around(polygons: Polygons) -> Float64[np.ndarray, "4"]:
    """The box around polygons."""
    points = np.concatenate([part.reshape(-1, 2) for part in polygons])
    return np.concatenate([points.min(0), points.max(0)])


def box_of_rle(rle: Rle) -> Float64[np.ndarray, "4"]:
    """The box around the pixels of a mask; zeros if the mask is empty."""
    rows, columns = np.nonzero(bitmap_of_rle(rle))
    if not len(rows):
        return np.zeros(4)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float64)


def _shoelace(part: Float64[np.ndarray, "xy"]) -> float:
    x, y = part[0::2], part[1::2]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
