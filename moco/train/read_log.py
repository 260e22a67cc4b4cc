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
    records = (_record_in(line) for line in lines)
    return [one for one in records if one is not None]


def has_only_records(log: Path) -> bool:
    """Whether each line of the log is a record, apart from one that a kill has cut off."""
    lines = log.read_bytes().splitlines(keepends=True)
    return all(_record_in(line) is not None or _is_cut_off(line) for line in lines)


def remove_records_after(log: Path, step: int) -> str | None:
    """Remove the records of steps after `step`, and what a kill or a power failure has left at the end.

    All other lines were not written by a run, so they are moved to a new file.

    Returns:
        The name of the new file; None: there are no such lines.
    """
    content = log.read_bytes() if log.is_file() else b""
    kept, others = list[bytes](), list[bytes]()
    for line in content.splitlines(keepends=True):
        found = _record_in(line)
        if found is not None:
            kept += [] if found["step"] > step else [line]
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


def _record_in(line: bytes) -> dict[str, Any] | None:
    """The record in a line of the log; None if no run writes such a line. Every record has its step and its epoch."""
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict) and type(found.get("step")) is int and type(found.get("epoch")) in (int, float):
            return found if _is_finite(found) else None
    return None


def _is_finite(record: dict[str, Any]) -> bool:
    """Whether each whole number can be a float. JSON has no limit."""
    return all(abs(value) < 2**63 for value in record.values() if isinstance(value, int))


def _is_cut_off(line: bytes) -> bool:
    """Whether this may be the first part of a record, or zeros, which a file system may leave after a power failure."""
    if line.endswith(b"\n"):
        return False
    return line.startswith(START) or START.startswith(line) or not line.strip(b"\0")
