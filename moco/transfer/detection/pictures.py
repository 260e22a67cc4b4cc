"""Pictures of a detector's results: annotations beside detections on the hardest images, curves, AP by class."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from moco.data.decode.decode import decode
from moco.transfer.masks import bitmap
from moco.transfer.metrics.coco import CocoScores
from moco.transfer.png import png_of
from moco.transfer.predicted_objects import Detections
from moco.transfer.scenes import HALF_PIXEL, Mask, Scene, SceneSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 0.5  # minimum score of detections that are drawn, and count in `hardest_scenes`
OVERLAP = 0.5  # minimum IoU of a detection with the object that it hits
HARDEST = 6  # images
CLASSES = 20  # maximum number of bars: the classes with the lowest AP
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#A06A00",
    "#3585B5",
)  # after Okabe and Ito, dark enough for white text
POINT = "#F0E442"


def draw_detections(scenes: SceneSet, found: Sequence[Detections]) -> bytes:
    """A PNG of the hardest images: annotated objects, and detections beside them."""
    from matplotlib.figure import Figure

    chosen = hardest_scenes(scenes, found)
    rows = -(-len(chosen) // 2)
    figure = Figure(figsize=(12, 3.4 * rows + 0.6), dpi=110, layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False)
    for ax in axes.ravel():
        ax.axis("off")
    for place, index in enumerate(chosen):
        scene, row, column = scenes.scenes[index], place // 2, 2 * (place % 2)
        pixels, objects, hits = decode(scene.path), scene.objects, found[index]
        _draw(axes[row, column], pixels, objects.boxes, objects.labels, scenes.classes, objects.masks)
        _points(axes[row, column], objects.keypoints, visible=True)
        seen = hits.scores >= SHOWN
        masks = None if hits.masks is None else [mask for mask, one in zip(hits.masks, seen, strict=True) if one]
        _draw(axes[row, column + 1], pixels, hits.boxes[seen], hits.labels[seen], scenes.classes, masks,
              scores=hits.scores[seen])  # fmt: skip
        _points(axes[row, column + 1], None if hits.keypoints is None else hits.keypoints[seen], visible=False)
        axes[row, column].set_title(f"annotated: {scene.path.name}"[:34], fontsize=9, loc="left")
        axes[row, column + 1].set_title("detected", fontsize=9, loc="left")
    figure.suptitle(
        f"The {len(chosen)} hardest of {len(scenes)} test images (detections with a score of {SHOWN} and more)",
        fontsize=12,
    )
    return png_of(figure)


def draw_precision_recall(scores: Mapping[str, CocoScores], measure: str = "IoU") -> bytes:
    """A PNG: precision over recall (mean over the classes) and AP by class and size; for boxes, masks or keypoints.

    `measure`: what the thresholds are of.
    """
    from matplotlib.figure import Figure

    bars = min(CLASSES, max(len(one.classes) for one in scores.values()))
    figure = Figure(figsize=(12, len(scores) * max(3.6, 0.26 * bars + 1.4)), dpi=110, layout="constrained")
    axes = figure.subplots(len(scores), 2, squeeze=False)
    for (name, one), (left, right) in zip(scores.items(), axes, strict=True):
        for threshold, colour in zip((0.5, 0.75, 0.9), COLOURS, strict=False):
            precision = one.precision[round((threshold - 0.5) / 0.05), :, :, 0, -1]
            known = precision[:, ~np.isnan(precision).all(axis=0)]
            if known.size:
                label = f"{measure} {threshold}: AP {100 * one.ap(threshold=threshold):.1f}"
                left.plot(np.linspace(0, 1, len(known)), known.mean(axis=1), color=colour, label=label)
        left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        kinds = one.precision.shape[2]
        left.set_title(f"{name}: mean over {kinds} classes" if kinds > 1 else name, fontsize=11, loc="left")
        left.legend(fontsize=9, loc="upper right")
        left.grid(color="#DDDDDD", linewidth=0.8)
        _bars(right, one)
    return png_of(figure)


def details_of(scores: Mapping[str, CocoScores]) -> dict[str, dict[str, dict[str, float | None]]]:
    """AP in percent by class and by size of the objects; None without objects."""
    return {
        name: {
            "AP by class": {label: _percent(value) for label, value in one.ap_by_class().items()},
            "AP by size": {area: _percent(one.ap(area=area)) for area in one.areas[1:]},
        }
        for name, one in scores.items()
    }


def hardest_scenes(scenes: SceneSet, found: Sequence[Detections], most: int = HARDEST) -> list[int]:
    """The images with the highest error, 1 - 2 hits / (objects + detections), worst first.

    A hit is a detection with an IoU of at least OVERLAP with an object of its class, which no detection with a higher
    score has hit. Detections with scores below SHOWN do not count.
    """
    errors = np.array([_error(scene, one) for scene, one in zip(scenes.scenes, found, strict=True)])
    return [int(index) for index in np.argsort(-errors, kind="stable")[:most]]


def _error(scene: Scene, found: Detections) -> float:
    counted = ~(scene.objects.crowd | scene.objects.difficult)
    boxes, labels = scene.objects.boxes[counted], scene.objects.labels[counted]
    order = [int(i) for i in np.argsort(-found.scores, kind="stable") if found.scores[i] >= SHOWN]
    free = np.ones(len(boxes), dtype=bool)
    for index in order:
        overlap = _iou(found.boxes[index], boxes) * (free & (labels == found.labels[index]))
        if len(boxes) and overlap.max() >= OVERLAP:
            free[overlap.argmax()] = False
    total = len(boxes) + len(order)
    return 1 - 2 * int((~free).sum()) / total if total else 0.0


def _iou(box: Float[np.ndarray, "4"], others: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n"]:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (high - low).clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return shared / np.maximum(areas - shared, 1e-9)


def _draw(
    ax: "Axes",
    pixels: UInt8[np.ndarray, "H W 3"],
    boxes: Float[np.ndarray, "n 4"],
    labels: Int64[np.ndarray, "n"],
    classes: Sequence[str],
    masks: Sequence[Mask | None] | None,
    *,
    scores: Float[np.ndarray, "n"] | None = None,
) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    height, width = pixels.shape[:2]
    shaded = pixels.astype(np.float64)
    for index, mask in enumerate(masks or ()):
        if mask is not None:
            inside: Bool[np.ndarray, "H W"] = bitmap(mask, height, width)
            shaded[inside] = 0.45 * shaded[inside] + 0.55 * 255 * np.array(to_rgb(_colour(int(labels[index]))))
    ax.imshow(shaded.astype(np.uint8), interpolation="nearest", extent=(0, width, height, 0))
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        colour = _colour(int(labels[index]))
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.6))
        text = classes[int(labels[index])] + ("" if scores is None else f" {scores[index]:.2f}")
        side = "top" if y0 < 0.08 * height else "bottom"  # inside of the box where there is no room above it
        ax.text(min(max(x0, 0), width), min(max(y0, 0), height), text, fontsize=7, color="white", va=side,
                clip_on=True, bbox={"facecolor": colour, "edgecolor": "none", "pad": 1})  # fmt: skip
    ax.set(xlim=(0, width), ylim=(height, 0))


def _points(ax: "Axes", keypoints: Float[np.ndarray, "n K 3"] | None, *, visible: bool) -> None:
    """Draw keypoints as dots. `visible`: they are annotations, at integer pixels, and unlabelled ones are skipped."""
    for points in () if keypoints is None else keypoints:
        drawn = points[points[:, 2] > 0] if visible else points
        shift = HALF_PIXEL if visible else 0
        ax.scatter(drawn[:, 0] + shift, drawn[:, 1] + shift, s=9, c=POINT, edgecolors="black", linewidths=0.5)


def _bars(ax: "Axes", scores: CocoScores) -> None:
    values = {name: 100 * value for name, value in scores.ap_by_class().items() if not np.isnan(value)}
    lowest = sorted(values.items(), key=lambda one: one[1])[:CLASSES]
    names, heights = [name[:24] for name, _ in lowest], [value for _, value in lowest]
    ax.barh(range(len(names)), heights, color=COLOURS[0])
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="AP", xlim=(0, 100))
    sizes = ", ".join(
        f"{area} {100 * value:.1f}" for area in scores.areas[1:] if not np.isnan(value := scores.ap(area=area))
    )
    which = f"the {CLASSES} classes of the lowest AP" if len(values) > CLASSES else "AP by class"
    ax.set_title(f"{which}; by size: {sizes or 'no objects'}", fontsize=11, loc="left")


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else 100 * value
