"""The geometry of a chart: where its curves, ticks and levels are in an SVG of fixed size."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 340, 190  # of the SVG
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 24  # margins
NEAR = 11  # between the baselines of two labels, at least


def draw_chart(chart: Mapping[str, Any]) -> dict[str, Any]:
    """Coordinates for the template: paths of the series, places of ticks and levels."""
    x, y = chart["x"], chart["y"]
    plot = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}

    def across(value: float) -> float:
        return _place(value, x["low"], x["high"], plot["left"], plot["right"])

    def up(value: float) -> float:
        return _place(value, y["low"], y["high"], plot["bottom"], plot["top"])

    levels = [{"at": up(one["value"]), **one} for one in chart["levels"]]
    return {
        "width": WIDTH, "height": HEIGHT, **plot,
        "paths": [_path([across(v) for v in one["x"]], [up(v) for v in one["y"]]) for one in chart["series"]],
        "dots": [
            [(across(a), up(b)) for a, b in zip(one["x"], one["y"], strict=True)] if len(one["x"]) <= 24 else []
            for one in chart["series"]
        ],
        "x_ticks": [(across(one["at"]), one["text"]) for one in x["ticks"]],
        "y_ticks": [(up(one["at"]), one["text"]) for one in y["ticks"]],
        "levels": _apart(levels, top=plot["top"] + 8, bottom=plot["bottom"] - 3),
    }  # fmt: skip


def _place(value: float, low: float, high: float, start: float, stop: float) -> float:
    return round(start + (value - low) / (high - low) * (stop - start), 1)


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in zip(xs, ys, strict=True))


def _apart(levels: Sequence[Mapping[str, Any]], *, top: float, bottom: float) -> list[dict[str, Any]]:
    """The levels with the baselines of their labels: above the line, or lower where labels would touch."""
    placed, free = list[dict[str, Any]](), top
    for level in sorted(levels, key=lambda one: one["at"]):
        label = min(max(level["at"] - 4, free), bottom)
        placed.append({**level, "label": round(label, 1)})
        free = label + NEAR
    return placed
