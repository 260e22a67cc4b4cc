"""Plot an ablation: the scores measured here, and the paper's."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moco.ablate.results import AblationResult, AblationRow, mean
from moco.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: safe for the colour-blind
MARKERS = ("o", "s", "^", "D")
GREY = "#666666"
PALE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}  # behind text


def plot(result: AblationResult, out: Path) -> None:
    """Write a PNG: a panel for each score, and one for the paper's numbers if there are any."""
    image = io.BytesIO()
    draw_figure(result).savefig(image, format="png")
    write_atomically(out, lambda file: file.write(image.getvalue()))


def draw_figure(result: AblationResult) -> "Figure":
    """The figure that `plot` writes."""
    from matplotlib.figure import Figure

    panels = len(result.columns) + bool(result.paper)
    in_order = not result.places
    height = 1.1 + 0.34 * len(result.rows) if in_order else 3.7
    figure = Figure(figsize=(1.2 * in_order + 3.7 * panels, height), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharey="row" if in_order else False)[0]
    series = list(dict.fromkeys([row.series for row in result.rows] + [name for name, _, _ in result.paper]))
    looks = {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(series)}
    for ax, column in zip(axes, result.columns, strict=False):
        ax.set_title(f"here: {column}", fontsize=10.5, loc="left")
        (_draw_rows if in_order else _draw_series)(ax, result, column, looks)
        _draw_baselines(ax, result, column, upright=in_order)
        if "memory" in result.measures:
            _mark_run_length(ax, result)
        _format_axes(ax, result, [row.label for row in result.rows])
    if result.paper:
        axes[-1].set_title("paper: ImageNet, linear, top-1", fontsize=10.5, loc="left")
        (_draw_paper_rows if in_order else _draw_paper_series)(axes[-1], result, looks)
        words = [row.label for row in result.rows if isinstance(row.paper, str)]
        _format_axes(axes[-1], result, words + [label for _, label, _ in result.paper])
    if any(series) and not in_order:
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9, frameon=False)
    return figure


def _draw_series(ax: "Axes", result: AblationResult, column: str, looks: Mapping[str, tuple[str, str]]) -> None:
    """Accuracy over the axis, one line for each series, error bars from `Row.uncertainty`."""
    for name in dict.fromkeys(row.series for row in result.rows):
        rows = [row for row in result.rows if row.series == name and row.scores(column)]
        values = [row.scores(column) for row in rows]
        ax.errorbar(
            [result.places[row.label] for row in rows], [mean(some) for some in values],
            yerr=[row.uncertainty(column) for row in rows],
            color=looks[name][0], marker=looks[name][1], markersize=5, capsize=3, linewidth=1.6, label=name or None,
        )  # fmt: skip


def _draw_paper_series(ax: "Axes", result: AblationResult, looks: Mapping[str, tuple[str, str]]) -> None:
    for name in dict.fromkeys(name for name, _, _ in result.paper):
        points = sorted((result.places[label], value) for series, label, value in result.paper if series == name)
        ax.plot(*zip(*points, strict=True), color=looks[name][0], marker=looks[name][1], markersize=5, linewidth=1.6)
    for row in result.rows:
        if isinstance(row.paper, str):
            where = ("data", "axes fraction")
            ax.annotate(row.paper, (result.places[row.label], 0.03), xycoords=where, fontsize=9, ha="left")


def _draw_rows(ax: "Axes", result: AblationResult, column: str, looks: Mapping[str, tuple[str, str]]) -> None:
    """One horizontal row for each cell, the first at the top; every run is a point."""
    for place, row in enumerate(result.rows):
        values = row.scores(column)
        ax.plot(values, [place] * len(values), linestyle="", marker="o", markersize=4, color=COLOURS[0], alpha=0.45)
        if values:
            bar = row.uncertainty(column)
            ax.errorbar([mean(values)], [place], xerr=[bar], marker="D", markersize=6, capsize=3, color=COLOURS[0])
    _label_rows(ax, result.rows)


def _draw_paper_rows(ax: "Axes", result: AblationResult, looks: Mapping[str, tuple[str, str]]) -> None:
    known = {(series, label): value for series, label, value in result.paper}
    for place, row in enumerate(result.rows):
        if (row.series, row.label) in known:
            ax.plot([known[row.series, row.label]], [place], marker="D", markersize=6, color=COLOURS[1])


def _label_rows(ax: "Axes", rows: Sequence[AblationRow]) -> None:
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)


def _draw_baselines(ax: "Axes", result: AblationResult, column: str, *, upright: bool) -> None:
    """The baselines that hold for every row."""
    if len(result.baselines) > 2:
        return  # random encoders of several architectures: they are in the table
    for style, (name, scores) in zip((":", "--"), result.baselines.items(), strict=False):
        value = mean(scores[column])
        (ax.axvline if upright else ax.axhline)(value, color=GREY, linestyle=style, linewidth=1)
        at, where = ((value, 0), ("data", "axes fraction")) if upright else ((1, value), ("axes fraction", "data"))
        ax.annotate(
            name, at, (3, 3) if upright else (-2, 2), xycoords=where, textcoords="offset points", fontsize=8,
            color=GREY, rotation=90 if upright else 0, ha="left" if upright else "right", va="bottom", bbox=PALE,
        )  # fmt: skip


def _mark_run_length(ax: "Axes", result: AblationResult) -> None:
    """On an axis of 1/(1-m), mark where f_k averages over as many steps as the run has."""
    steps = max(row.facts["steps"] for row in result.rows)
    ax.axvline(steps, color=GREY, linewidth=1, alpha=0.6)
    ax.annotate(
        "1/(1-m) =\nsteps of the run", (steps, 0.98), (3, 0), xycoords=("data", "axes fraction"),
        textcoords="offset points", fontsize=8, color=GREY, va="top",
    )  # fmt: skip


def _format_axes(ax: "Axes", result: AblationResult, shown: Sequence[str]) -> None:
    """Draw grid and names, and the labels `shown` at their positions, on a logarithmic axis if the family has one."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y" if result.places else "x", color="#DDDDDD", linewidth=0.8)
    if not result.places:
        ax.set_xlabel("accuracy [%]")
        return
    if result.log:
        ax.set_xscale("log")
    labels = sorted(set(shown), key=lambda label: result.places[label])
    places = [result.places[label] for label in labels]
    ax.set_xticks(places, labels, fontsize=8.5, rotation=45 if len(labels) > 5 else 0)
    ax.set_xticks([], minor=True)
    ax.set_xlabel(result.axis)
    ax.set_ylabel("accuracy [%]")
