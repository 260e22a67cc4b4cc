"""Scores of an encoder and its baselines, with intervals, from the table that an evaluation has written."""

import math
from collections.abc import Mapping
from typing import Any

from moco.report.charts import round_digits

WIDE = 1.96  # standard errors of a 95 % interval of a normal distribution


def score_table(stored: Any) -> dict[str, Any] | None:
    """The content of a scores.json as rows of cells with texts; None if it is not such a table."""
    try:
        rows = [_row(name, cells, judged=stored["judged"]) for name, cells in stored["rows"].items()]
        columns = list(stored["rows"][stored["judged"]])
        chance = float(stored["chance"])
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    cell = {"accuracy": round_digits(chance), "text": f"{chance:.1f}", "low": None, "high": None, "interval": ""}
    first = {"name": f"chance (the largest of {stored.get('classes', '?')} classes)", "role": "chance"}
    return {
        "columns": columns, "unit": "held-out accuracy [%]", "rows": [first | {"cells": [cell] * len(columns)}, *rows],
        "verdict": str(stored.get("verdict", "")), "chance": round_digits(chance),
        "notes": [str(stored.get("how", "")), *map(str, stored.get("notes", []))],
        "interval": "Ranges are 95 % intervals: 1.96 standard errors on both sides.",
    }  # fmt: skip


def _row(name: str, cells: Mapping[str, Any], *, judged: str) -> dict[str, Any]:
    return {
        "name": name, "role": "encoder" if name == judged else "other", "cells": [_cell(one) for one in cells.values()]
    }  # fmt: skip


def _cell(score: Mapping[str, Any]) -> dict[str, Any]:
    accuracy, error = float(score["accuracy"]), float(score["standard_error"])
    if not (math.isfinite(accuracy) and math.isfinite(error)):
        raise ValueError("a score that is not finite")
    low, high = max(0.0, accuracy - WIDE * error), min(100.0, accuracy + WIDE * error)
    return {
        "accuracy": round_digits(accuracy),
        "low": round_digits(low),
        "high": round_digits(high),
        "text": f"{accuracy:.1f}",
        "interval": f"{low:.1f} to {high:.1f}",
    }
