"""An encoder beside its baselines, from the compare.json of `moco compare`: scores, and paired differences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from moco.report.charts import round_digits

LEVELS = {"yes": "good", "no": "bad", "cannot tell": "neutral"}


def comparison_table(stored: Any) -> dict[str, Any] | None:
    """The content of a compare.json as rows of cells with texts; None if it is not such a file."""
    try:
        judged, columns = stored["judged"], list(next(iter(stored["scores"].values())))
        names = [judged, *(name for name in stored["scores"] if name != judged)]
        rows = [_row(name, stored, columns, judged=judged) for name in names]
        answer, sentence = str(stored["verdict"]["answer"]), str(stored["verdict"]["sentence"])
        level, images = 100 * float(stored["level"]), int(stored["images"])
        labels = stored.get("used_labels") is not False
        kind = "test images" if labels else "images without labels, so this is a hint"
        notes = [str(stored["split"]), *map(str, stored["notes"])]
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration, ZeroDivisionError):
        return None
    return {
        "answer": answer, "level": LEVELS.get(answer, "neutral"), "sentence": sentence,
        "unit": "accuracy [%]" if labels else "measures of two views, x 100",
        "columns": columns, "rows": rows,
        "text": f"{images:,} {kind}. Below each baseline: this encoder minus the baseline, in points, with the "
                f"paired {level:.3g} % interval; bold where the interval is on one side of zero.",
        "notes": [one.rstrip(".") + "." for one in notes if one],
    }  # fmt: skip


def _row(name: str, stored: Mapping[str, Any], columns: Sequence[str], *, judged: str) -> dict[str, Any]:
    differences = stored["differences"].get(name, {})
    answer = "" if name == judged else str(stored["verdicts"].get(name, {}).get("answer", ""))
    cells = [_cell(stored["scores"][name][column], differences.get(column)) for column in columns]
    return {"name": name, "role": "encoder" if name == judged else "other", "answer": answer, "cells": cells}


def _cell(seeds: Sequence[float], difference: Mapping[str, Any] | None) -> dict[str, Any]:
    """Score and difference of one measure. Raises ValueError for a number that is not finite."""
    mean = sum(map(float, seeds)) / len(seeds)
    spread = f"{min(seeds):.1f} to {max(seeds):.1f}, {len(seeds)} seeds" if len(seeds) > 1 else ""
    cell = {"accuracy": _finite(mean), "text": f"{mean:.1f}", "seeds": spread, "interval": "", "clear": False}
    if difference is None:
        return cell
    points, low, high = (_finite(float(difference[key])) for key in ("points", "low", "high"))
    return cell | {
        "points": points, "low": low, "high": high, "interval": f"{points:+.1f} ({low:+.1f} to {high:+.1f})",
        "clear": low > 0 or high < 0,
    }  # fmt: skip


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    return round_digits(value)
