"""Read the records of metrics.jsonl, and remove those that a resumed run logs again. Lines of others are not lost."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from moco.files import write_atomically
from moco.train.keep_checkpoints import free_name

START = b'{"step": '  # of each record that a run writes


def read_records(log: Path) -> list[dict[str, Any]]:
    """The records of a log. Other lines are left out."""
    lines = log.read_bytes().splitlines() if log.is_file() else []
    records = (_object_in(line) for line in lines)
    return [one for one in records if one is not None and isinstance(one.get("step", 0), int) and _is_finite(one)]


def remove_records_after(log: Path, step: int) -> str | None:
    """Remove the records of steps after `step`, and what a kill or a power failure has left at the end.

    Other lines that are no JSON objects were not written by a run, so they are moved to a new file. All other lines do
    not change.

    Returns:
        The name of the new file; None: there are no such lines.
    """
    content = log.read_bytes() if log.is_file() else b""
    kept, others = list[bytes](), list[bytes]()
    for line in content.splitlines(keepends=True):
        found = _object_in(line)
        if found is not None:
            later = isinstance(found.get("step"), int) and found["step"] > step
            kept += [] if later else [line]
        elif line.strip() and not _is_cut_off(line):
            others.append(line)
    moved = free_name(log) if others else None
    if moved is not None:  # first: if the process is killed in between, the lines are there twice
        write_atomically(moved, lambda file: file.writelines(others))
    if kept and not kept[-1].endswith(b"\n"):
        kept[-1] += b"\n"
    if b"".join(kept) != content or not log.exists():
        write_atomically(log, lambda file: file.writelines(kept))
    return None if moved is None else moved.name


def _is_finite(record: dict[str, Any]) -> bool:
    """Whether each whole number can be a float. JSON has no limit."""
    return all(abs(value) < 2**63 for value in record.values() if isinstance(value, int))


def _object_in(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        return found if isinstance(found, dict) else None
    return None


def _is_cut_off(line: bytes) -> bool:
    """Whether this may be the first part of a record, or zeros, which a file system may leave after a power failure."""
    if line.endswith(b"\n"):
        return False
    return line.startswith(START) or START.startswith(line) or not line.strip(b"\0")
