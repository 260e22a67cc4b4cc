"""The measurements and the loader's waiting time in the records of metrics.jsonl."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from moco.diagnose.measure import Measurement

PROBE_KEY = "probe"  # of a record: the signals of a measurement
NAMES = {field.name for field in fields(Measurement)}


def measurements(records: Sequence[dict[str, Any]]) -> list[tuple[int, Measurement]]:
    """Step and measurement of each record that has one. Those of versions with other signals are left out."""
    found = [(record["step"], record[PROBE_KEY]) for record in records if isinstance(record.get(PROBE_KEY), dict)]
    return [(step, Measurement(**values)) for step, values in found if values.keys() == NAMES]


def measure_waiting_share(records: Sequence[dict[str, Any]]) -> float | None:
    """The share of the time that training waited for images, in the second half of the last start of the run.

    The first half is left out because workers start there. None with fewer than three records.
    """
    times = [
        (record["seconds"], record["seconds_waited"])
        for record in records
        if isinstance(record.get("seconds"), int | float) and isinstance(record.get("seconds_waited"), int | float)
    ]
    first = max([i for i in range(1, len(times)) if times[i][0] < times[i - 1][0]], default=0)
    last_start = times[first:]
    if len(last_start) < 3:
        return None
    (begin, waited_before), (end, waited) = last_start[len(last_start) // 2 - 1], last_start[-1]
    return (waited - waited_before) / (end - begin) if end > begin else None
