"""Curves of one or several runs as plain data: points, axes with their ticks, and reference levels.

All that a chart of the page shows is in the dict that `chart` returns, and so in report.json.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

MOST_POINTS = 240  # of a curve; more are averaged
DIGITS = 5  # significant digits of the values
TICKS = 4  # intervals of an axis, about


@dataclass(frozen=True)
class Curve:
    """The logged values of one run."""

    run: str
    points: Sequence[tuple[float, float]]  # epoch and value, in order


@dataclass(frozen=True)
class Level:
    """A value to compare a curve with, drawn as a dashed line."""

    name: str
    value: float


@dataclass(frozen=True)
class ChartSpec:
    """What a chart shows besides its curves.

    Attributes:
        unit: of its values; "" for none.
        note: a sentence below it.
        percent: the values are shares, shown as percentages.
        seen_from: the epoch from which on values decide the range of the axis; earlier ones may be outside of it.
        from_zero: the axis starts at 0.
    """

    id: str
    title: str
    unit: str = ""
    note: str = ""
    percent: bool = False
    seen_from: float = 0.0
    from_zero: bool = False
    levels: Sequence[Level] = field(default=())


def chart(spec: ChartSpec, curves: Sequence[Curve]) -> dict[str, Any] | None:
    """The chart as a dict for report.json; None if no curve has a point."""
    scale = 100.0 if spec.percent else 1.0
    series = [
        {"run": curve.run, "x": [round_digits(x) for x, _ in points], "y": [round_digits(scale * y) for _, y in points]}
        for curve in curves
        if (points := average_points([(x, y) for x, y in curve.points if math.isfinite(y)]))
    ]
    if not series:
        return None
    levels = [
        {"name": level.name, "value": round_digits(scale * level.value), "text": text_of(scale * level.value)}
        for level in spec.levels
        if math.isfinite(level.value)
    ]
    seen = [y for one in series for x, y in zip(one["x"], one["y"], strict=True) if x >= spec.seen_from]
    seen = seen or [y for one in series for y in one["y"]]
    seen += [level["value"] for level in levels] + ([0.0] if spec.from_zero else [])
    return {
        "id": spec.id, "title": spec.title, "unit": "%" if spec.percent else spec.unit, "note": spec.note,
        "x": axis([x for one in series for x in one["x"]] + [0.0], tight=True), "y": axis(seen), "series": series,
        "levels": levels,
    }  # fmt: skip


def axis(values: Iterable[float], *, tight: bool = False) -> dict[str, Any]:
    """The range of an axis and its ticks. A `tight` one ends at the largest value."""
    values = list(values)
    low, high = min(values), max(values)
    if low == high:
        low, high = (low - 1, high + 1) if not low else (low - abs(low) / 2, high + abs(high) / 2)
    step = nice_step((high - low) / TICKS)
    if not tight:
        low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [step * number for number in range(first, last + 1)]
    return {
        "low": round_digits(low), "high": round_digits(high),
        "ticks": [{"at": round_digits(at), "text": text_of(at, step=step)} for at in ticks],
    }  # fmt: skip


def nice_step(at_least: float) -> float:
    """1, 2 or 5 times a power of ten, at least `at_least`."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= at_least * (1 - 1e-9))


def average_points(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: means of equally many neighbours. The last point stays as it is."""
    if len(points) <= MOST_POINTS:
        return list(points)
    *rest, last = points
    bounds = [round(i * len(rest) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)]
    parts = [rest[start:stop] for start, stop in pairwise(bounds)]
    return [tuple(sum(values) / len(part) for values in zip(*part, strict=True)) for part in parts] + [last]  # type: ignore[misc]


def round_digits(value: float) -> float:
    """`value` with DIGITS significant digits, and without a minus sign at 0."""
    return float(f"{value:.{DIGITS}g}") + 0.0


def text_of(value: float, *, step: float | None = None) -> str:
    """`value` as a person writes it: about four digits, or as many decimals as ticks in such a step need."""
    if step is not None and value and not 1e-4 <= abs(step) < 1e6:
        return f"{value:.3g}"
    if step is None and 0 < abs(value) < 1e-4:
        return f"{value:.2g}"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else max(0, 3 - _magnitude(value))
    text = f"{value + 0.0:,.{min(decimals, 8)}f}"
    return text.rstrip("0").rstrip(".") if "." in text and step is None else text


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0
