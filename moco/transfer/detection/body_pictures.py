"""A picture of dense poses: annotated points beside the predicted surfaces, on the hardest images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from moco.data.decode.decode import decode
from moco.transfer.detection.pictures import SHOWN
from moco.transfer.metrics.coco import sides_of
from moco.transfer.metrics.densepose import BodyResults, Similarities
from moco.transfer.models.densepose import BODY_PARTS
from moco.transfer.png import png_of
from moco.transfer.scenes import Objects, SceneSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HARDEST = 4  # images
COLUMNS = ("annotated parts", "predicted parts", "annotated U (red), V (green)", "predicted U, V")


def mean_gps(image: Similarities) -> float:
    """The mean over the persons with points of the greatest GPS of a prediction with a score of SHOWN and more.

    NaN without such persons.
    """
    if not image.annotated.any():
        return float("nan")
    sure = image.gps[image.scores >= SHOWN][:, image.annotated]
    return float(sure.max(axis=0).mean()) if len(sure) else 0.0


def hardest_bodies(images: Sequence[Similarities], most: int = HARDEST) -> list[int]:
    """The images with the lowest `mean_gps`, worst first; those without points on persons come last."""
    return np.argsort([mean_gps(one) for one in images], kind="stable")[:most].tolist()  # NaN is sorted to the end


def draw_bodies(scenes: SceneSet, chosen: Sequence[int], found: Sequence[BodyResults], gps: Sequence[float]) -> bytes:
    """A PNG of the `chosen` images: points and predicted pixels, coloured by part, and by U and V.

    `found`, `gps`: the predictions and `mean_gps` of each chosen image.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.7 * len(chosen) + 0.6), dpi=100, layout="constrained")
    axes = figure.subplots(len(chosen), len(COLUMNS), squeeze=False)
    for row, index, persons, similar in zip(axes, chosen, found, gps, strict=True):
        scene = scenes.scenes[index]
        pixels = decode(scene.path)
        painted = _paint(pixels, persons)
        for column, (ax, title) in enumerate(zip(row, COLUMNS, strict=True)):
            if column % 2:
                ax.imshow(painted[column // 2], interpolation="nearest", extent=(0, *pixels.shape[1::-1], 0))
                _outline(ax, persons.boxes[persons.scores >= SHOWN])
            else:
                ax.imshow(pixels, interpolation="nearest", extent=(0, *pixels.shape[1::-1], 0))
                _points(ax, scene.objects, by_part=not column)
            ax.axis("off")
            ax.set_title(title, fontsize=9, loc="left")
        row[0].set_title(f"{scene.path.name[-34:]}\n{COLUMNS[0]}", fontsize=9, loc="left")
        row[1].set_title(f"mean GPS {similar:.2f}\n{COLUMNS[1]}", fontsize=9, loc="left")
    figure.suptitle(
        f"The {len(chosen)} hardest of {len(scenes)} test images (predictions with a score of {SHOWN} and more)",
        fontsize=12,
    )
    return png_of(figure)


def _paint(
    pixels: UInt8[np.ndarray, "H W 3"], persons: BodyResults
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W 3"]]:
    """The image with the predicted parts painted over, and with U and V. Higher scores cover lower ones."""
    by_part, by_place = pixels / 255.0, pixels / 255.0
    height, width = pixels.shape[:2]
    for index in reversed(np.flatnonzero(persons.scores >= SHOWN).tolist()):
        x0, y0 = (max(int(one), 0) for one in persons.boxes[index, :2])
        part = persons.parts[index][: height - y0, : width - x0]
        y, x = np.nonzero(part)
        u, v = persons.uv[index][:, y, x]
        by_part[y0 + y, x0 + x] = _colours_of_parts(part[y, x])
        by_place[y0 + y, x0 + x] = _colours_of_places(u, v)
    return by_part, by_place


def _points(ax: "Axes", objects: Objects, *, by_part: bool) -> None:
    for points, box in zip(objects.body_points or (None,) * len(objects), objects.boxes, strict=True):
        if points is None:
            continue
        _outline(ax, box[None])
        x0, y0, across, down = sides_of(box)
        colours = _colours_of_parts(points.part) if by_part else _colours_of_places(points.u, points.v)
        ax.scatter(points.x * across / 255 + x0, points.y * down / 255 + y0, s=10, c=colours,
                   edgecolors="black", linewidths=0.3)  # fmt: skip


def _outline(ax: "Axes", boxes: Float[np.ndarray, "n 4"]) -> None:
    from matplotlib.patches import Rectangle

    for x0, y0, x1, y1 in boxes:
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=1.2))


def _colours_of_parts(parts: np.ndarray) -> Float[np.ndarray, "n 3"]:
    from matplotlib import colormaps

    places = parts * 7 % BODY_PARTS  # neighbouring numbers, such as left and right, differ in colour
    return colormaps["turbo"]((places + 0.5) / BODY_PARTS)[:, :3]


def _colours_of_places(u: np.ndarray, v: np.ndarray) -> Float[np.ndarray, "n 3"]:
    return np.stack([u, v, np.full_like(u, 0.35)], axis=1).astype(np.float64)
