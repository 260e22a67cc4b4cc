"""Pictures of a classifier's results: the hardest test images, and which classes are taken for which."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from moco.data.sources.images import Images
from moco.transfer.png import png_of

HARDEST = 12  # images
COLUMNS = 4
CLASSES = 20  # maximum number of rows in the table of confusions: the classes with the most mistakes
RIGHT, WRONG = "#00694C", "#A33E00"


def draw_predictions(test: Images, logits: Float[Tensor, "n K"], labels: Int64[Tensor, "n"]) -> bytes:
    """A PNG of the hardest images, with the annotated and the predicted class."""
    from matplotlib.figure import Figure

    probabilities, chosen = logits.softmax(dim=1), hardest_images(logits, labels)
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(12, 3.6 * rows + 0.6), dpi=100, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, index in zip(axes, chosen, strict=False):
        answer, label = int(probabilities[index].argmax()), int(labels[index])
        ax.imshow(test.read(index))
        ax.set_title(
            f"{test.names[index][-38:]}\nannotated: {test.classes[label][:27]}\n"
            f"predicted: {test.classes[answer][:22]} {probabilities[index, answer]:.2f}",
            fontsize=9, loc="left", color=RIGHT if answer == label else WRONG,
        )  # fmt: skip
    figure.suptitle(
        f"The {len(chosen)} hardest of {len(test)} test images (lowest probability of the annotated class)", fontsize=12
    )
    return png_of(figure)


def hardest_images(logits: Float[Tensor, "n K"], labels: Int64[Tensor, "n"], most: int = HARDEST) -> list[int]:
    """The images with the lowest probability of their class, worst first."""
    losses = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    return torch.argsort(losses, descending=True, stable=True)[:most].tolist()


def draw_confusions(logits: Float[Tensor, "n K"], labels: Int64[Tensor, "n"], classes: Sequence[str]) -> bytes:
    """A PNG: the share of each class's images that is predicted as each class; with many classes, of those with the
    most mistakes."""
    from matplotlib.figure import Figure

    counts = confusions(logits, labels)
    shown = most_confused(counts)
    others = counts[shown].sum(axis=1) - counts[np.ix_(shown, shown)].sum(axis=1)
    table = np.concatenate([counts[np.ix_(shown, shown)], others[:, None]], axis=1)
    names = [classes[index][:30] for index in shown]
    if len(shown) == len(classes):
        table = table[:, :-1]
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = 0.42 * len(shown) + 3
    figure = Figure(figsize=(side + 0.6, side), dpi=100, layout="constrained")
    ax = figure.subplots()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        if count:
            ax.text(column, row, f"{count}", ha="center", va="center", fontsize=8,
                    color="white" if shares[row, column] > 0.5 else "black")  # fmt: skip
    ax.set_xticks(range(table.shape[1]), [*names, "others"][: table.shape[1]], rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="predicted", ylabel="annotated")
    which = f"the {len(shown)} classes with the most mistakes" if len(shown) < len(classes) else "all classes"
    ax.set_title(f"Test images of {which}", fontsize=11, loc="left")
    return png_of(figure)


def confusions(logits: Float[Tensor, "n K"], labels: Int64[Tensor, "n"]) -> Int64[np.ndarray, "K K"]:
    """The number of images by true and predicted class."""
    kinds = logits.shape[1]
    pairs = torch.bincount(labels * kinds + logits.argmax(dim=1), minlength=kinds * kinds)
    return pairs.view(kinds, kinds).numpy()


def most_confused(counts: Int64[np.ndarray, "K K"], most: int = CLASSES) -> list[int]:
    """The classes that take part in the most mistakes, in their own order: all of them, if there are at most `most`."""
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return sorted(np.argsort(-mistakes, kind="stable")[:most].tolist())
