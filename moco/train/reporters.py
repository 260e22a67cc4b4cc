"""Reporters: a run sends them messages, its live line and each record of metrics.jsonl.

Here are one for train.log and one that reports nothing; console.py has the one for a terminal. For a tracker, write
another class.
"""

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from moco.files import append
from moco.text import one_line
from moco.train.lock_folder import RunError, check_same_folder

SEPARATOR = "  "  # between the parts of a live line


@runtime_checkable
class Reporter(Protocol):
    """The interface that a run reports to."""

    def box(self, title: str, rows: list[tuple[str, str]]) -> None: ...  # names and texts, such as the plan
    def say(self, text: str) -> None: ...  # a message
    def live(self, *parts: str) -> None: ...  # the progress, most important part first
    def metrics(self, record: dict[str, Any]) -> None: ...  # a line of metrics.jsonl


class Logged:
    """Passes reports on to another reporter, and writes them with the time to a file, a run's train.log."""

    def __init__(self, reporter: Reporter, file: Path):
        self.reporter, self.file, self._written = reporter, file, 0.0

    def box(self, title: str, rows: list[tuple[str, str]]) -> None:
        self.reporter.box(title, rows)
        self.note(title, rows)

    def note(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Write to the file only."""
        self.write(*[f"{title}: {name}: {text}" for name, text in rows])

    def say(self, text: str) -> None:
        self.reporter.say(text)
        self.write(text)

    def live(self, *parts: str) -> None:
        self.reporter.live(*parts)
        if time.monotonic() - self._written > 15:
            self._written = time.monotonic()
            self.write(SEPARATOR.join(parts))

    def metrics(self, record: dict[str, Any]) -> None:
        self.reporter.metrics(record)

    def write(self, *lines: str) -> None:
        """Write lines to the file only, each with the time."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError, RunError):  # a run does not fail because of its log
            check_same_folder(self.file.parent)
            append(self.file, "".join(f"{now} {one_line(line)}\n" for line in lines).encode("utf-8", "surrogateescape"))


class Silent:
    """Reports nothing."""

    def box(self, title: str, rows: list[tuple[str, str]]) -> None: ...
    def say(self, text: str) -> None: ...
    def live(self, *parts: str) -> None: ...
    def metrics(self, record: dict[str, Any]) -> None: ...
