"""Plot the curves of a run: loss, learning rate, and kNN accuracy if it was logged."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moco.files import write_atomically
from moco.recipe import Recipe
from moco.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREEN, VERMILION, GREY = "#0072B2", "#009E73", "#D55E00", "#555555"  # Okabe and Ito: safe for the colour-blind
Records = list[dict[str, Any]]


def curves(records: Records, recipe: Recipe, out: Path, *, chance: float | None = None) -> None:
    """Write a PNG of the logged curves of a run: loss and its collapse level, kNN accuracy if logged, learning rate.

    Args:
        records: those of metrics.jsonl.
        chance: the accuracy of chance [percent], drawn as a dashed line.

    Raises:
        ValueError: no step has been logged yet.
    """
    image = io.BytesIO()
    make_figure(records, recipe, chance=chance).savefig(image, format="png")
    write_atomically(out, lambda file: file.write(image.getvalue()))


def make_figure(records: Records, recipe: Recipe, *, chance: float | None = None) -> "Figure":
    """The figure that `curves` writes: plots over the epochs, one below the other."""
    from matplotlib.figure import Figure

    steps = [record for record in records if "loss" in record]
    scores = [record for record in records if "knn" in record]
    if not steps:
        raise ValueError("the run has logged no step yet: train first")
    heights = [3, 2, 1] if scores else [3, 1]
    figure = Figure(figsize=(8, 1.3 * sum(heights)), dpi=200, layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _loss(axes[0], steps, recipe)
    if scores:
        _knn(axes[1], scores, chance)
    _lr(axes[-1], steps)
    for ax in axes:
        ax.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=11)
    last = steps[-1]
    axes[0].set_title(
        f"{recipe.name}: {plural(last['step'], 'step')}, {_epochs(last['epoch'])}", loc="left", fontsize=13
    )
    axes[-1].set_xlabel("epoch", fontsize=12)
    axes[-1].set_xlim(0, last["epoch"])
    return figure


def _epochs(count: float) -> str:
    return f"{count:.4g} {'epoch' if count == 1 else 'epochs'}"


def _loss(ax: "Axes", steps: Records, recipe: Recipe) -> None:
    epochs, losses = _column(steps, "epoch"), _column(steps, "loss")
    window = max(1, len(losses) // 25)
    if window > 1:
        ax.plot(epochs, losses, color=BLUE, alpha=0.3, linewidth=1, label="one step")
        means = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        ax.plot(
            epochs[window // 2 :][: len(means)], means, color=BLUE, linewidth=2, label=f"mean of {window} logged steps"
        )
        ax.legend(loc="lower left", fontsize=10.5, frameon=False, ncols=2)
    else:
        ax.plot(epochs, losses, color=BLUE, linewidth=2, marker="o", markersize=4)
    level = recipe.collapse_level
    ax.axhline(level, color=VERMILION, linestyle="--", linewidth=1.5)
    ax.annotate(
        f"chance among {recipe.candidates:,} keys, as after a collapse: {level:.2f}", (1, level), (0, 5),
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", color=VERMILION, fontsize=10.5,
    )  # fmt: skip
    counted = losses[_column(steps, "step") > _steps_to_fill(recipe)]
    if 0 < len(counted) < len(losses) and losses.min() < counted.min():
        ax.annotate(
            "lower at first: random keys are still in the queue", (0, level), (4, -5),
            xycoords=("axes fraction", "data"), textcoords="offset points", va="top", color=GREY, fontsize=10.5,
        )  # fmt: skip
    seen = counted if len(counted) else losses
    low, high = min(*seen, level), max(*seen, level)
    room = max(high - low, 0.1)
    ax.set_ylim(low - 0.15 * room, high + 0.12 * room)
    names = {"infonce": "InfoNCE loss", "nce": "NCE loss"}
    ax.set_ylabel(f"{names[recipe.method.loss]}\n[nats]", fontsize=12)


def _steps_to_fill(recipe: Recipe) -> float:
    """The number of steps until the queue has no random keys. Until then the task is easier, and the loss lower."""
    has_queue = recipe.method.dictionary == "queue"
    return (recipe.method.size or 0) / recipe.keys_per_step if has_queue else 0


def _knn(ax: "Axes", scores: Records, chance: float | None) -> None:
    epochs, accuracy = _column(scores, "epoch"), _column(scores, "knn")
    ax.plot(epochs, accuracy, color=GREEN, linewidth=2, marker="o", markersize=5, clip_on=False)
    ax.annotate(f"first {accuracy[0]:.1f} %, last {accuracy[-1]:.1f} %", (1, 0.04),
                xycoords="axes fraction", ha="right", va="bottom", color=GREEN, fontsize=10.5)  # fmt: skip
    if chance is not None:
        ax.axhline(chance, color=GREY, linestyle="--", linewidth=1.2)
        ax.annotate(f"chance {chance:.1f} %", (0, chance), (3, 4), xycoords=("axes fraction", "data"),
                    textcoords="offset points", color=GREY, fontsize=10.5)  # fmt: skip
    low = min([*accuracy, *([] if chance is None else [chance])])
    room = max(max(accuracy) - low, 1.0)
    ax.set_ylim(low - 0.25 * room, max(accuracy) + 0.1 * room)
    ax.set_ylabel("kNN accuracy\n[%]", fontsize=12)


def _lr(ax: "Axes", steps: Records) -> None:
    ax.plot(_column(steps, "epoch"), _column(steps, "lr"), color=GREY, linewidth=2)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("learning\nrate", fontsize=12)


def _column(records: Records, name: str) -> np.ndarray:
    return np.array([record[name] for record in records], dtype=float)
