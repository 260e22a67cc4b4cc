"""Curves of runs as lines of text, for the terminal."""

from collections.abc import Sequence
from typing import Any

BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.,-=+*#"
CURVE_WIDTH = 40  # characters of a curve
SHOWN = {"loss": ("loss", "{:.3f}"), "pretext_top1": ("contrastive accuracy", "{:.1%}"), "knn": ("kNN [%]", "{:.1f}")}

Points = list[tuple[float, float]]


def draw_text_curves(runs: Sequence[tuple[str, list[dict[str, Any]]]], *, encoding: str | None = None) -> list[str]:
    """Loss, contrastive accuracy and kNN accuracy over the epochs, a line for each run, with first and last value.

    All runs have the same axes: the epochs of the longest run, and the range of all values.

    Args:
        runs: names, and the records of metrics.jsonl.
        encoding: of the terminal; without block characters in it, ASCII characters are used.
    """
    blocks = BLOCKS if can_encode(BLOCKS, encoding) else ASCII_BLOCKS
    arrow = "→" if blocks == BLOCKS else "->"
    lines: list[str] = []
    for key, (title, form) in SHOWN.items():
        curves = [(name, points_of(records, key)) for name, records in runs]
        if not any(points for _, points in curves):
            continue
        epochs = max(epoch for _, points in curves for epoch, _ in points)
        values = [value for _, points in curves for _, value in points]
        plural = "epoch" if epochs == 1 else "epochs"
        width = max(len(name) for name, _ in runs)
        bounds = min(values), max(values)
        low, high = map(form.format, bounds)
        lines.append(f"{title} over {epochs:.3g} {plural}, from {low} to {high}")
        for name, points in curves:
            line = draw(points, epochs, bounds, blocks)
            ends = f"{form.format(points[0][1])} {arrow} {form.format(points[-1][1])}" if points else "no values"
            lines.append(f"  {name:<{width}}  {line:<{CURVE_WIDTH}}  {ends}".rstrip())
    return lines


def points_of(records: list[dict[str, Any]], key: str) -> Points:
    """Epoch and finite value of each record that has `key`."""
    both = [(record.get("epoch"), record.get(key)) for record in records]
    return [
        (float(epoch), float(value))
        for epoch, value in both
        if isinstance(epoch, int | float) and isinstance(value, int | float) and abs(value) < float("inf")
    ]


def draw(points: Points, epochs: float, bounds: tuple[float, float], blocks: str) -> str:
    """Means of the values in WIDTH equal intervals of [0, epochs]; an interval without a value repeats the one before.

    The line ends with the last value, and starts with blanks where the first value comes later.
    """
    low, high = bounds
    columns: list[list[float]] = [[] for _ in range(CURVE_WIDTH)]
    for epoch, value in points:
        columns[min(CURVE_WIDTH - 1, int(CURVE_WIDTH * epoch / epochs) if epochs else 0)].append(value)
    last = max((i for i, values in enumerate(columns) if values), default=-1)
    text, before = "", " "
    for values in columns[: last + 1]:
        if values:
            share = (sum(values) / len(values) - low) / (high - low) if high > low else 0.0
            before = blocks[min(len(blocks) - 1, int(share * len(blocks)))]
        text += before
    return text


def can_encode(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
