"""Draw the hardest test images of a segmenter, with their annotated and predicted classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from moco.transfer.models.fcn import FCN
from moco.transfer.png import png_of
from moco.transfer.readers.voc_semantic import palette
from moco.transfer.segmentation.loader import read_pair
from moco.transfer.segmentation.score import predict
from moco.transfer.semantic import IGNORED, SemanticSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 24  # maximum number of classes in the legend


def draw_segmentations(segmenter: FCN, test: SemanticSet, chosen: Sequence[int], errors: Sequence[float]) -> bytes:
    """A PNG of the `chosen` test images. `errors`: the share of wrong pixels in each, among those not ignored."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2 * len(chosen) + 0.8), dpi=90, layout="constrained")
    axes = figure.subplots(len(chosen), 3, squeeze=False)
    seen: set[int] = set()
    for row, index, error in zip(axes, chosen, errors, strict=True):
        image, labels = read_pair(test, index)
        predicted = predict(segmenter, image)
        seen |= {*np.unique(labels).tolist(), *np.unique(predicted).tolist()}
        titles = (test.scenes[index].path.name[:34], "annotated", f"predicted, {100 * error:.1f} % wrong")
        for ax, pixels, title in zip(row, (image, _coloured(labels), _coloured(predicted)), titles, strict=True):
            ax.imshow(pixels)
            ax.axis("off")
            ax.set_title(title, fontsize=9, loc="left")
    figure.suptitle(f"The {len(chosen)} hardest of {len(test)} test images", fontsize=12)
    _add_legend(figure, test.classes, seen)
    return png_of(figure)


def _coloured(labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """The labels in Pascal VOC's colours; ignored pixels are white."""
    colours = np.array([*palette(IGNORED), (255, 255, 255)], dtype=np.uint8)
    return colours[labels]


def _add_legend(figure: "Figure", classes: Sequence[str], seen: set[int]) -> None:
    from matplotlib.patches import Patch

    shown = sorted(seen - {IGNORED})[:NAMED]
    colours = [np.array(colour) / 255 for colour in palette(IGNORED)]
    patches = [Patch(color=tuple(colours[label]), label=classes[label][:24]) for label in shown]
    if IGNORED in seen:
        patches.append(Patch(facecolor="white", edgecolor="black", label="ignored"))
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=9)
