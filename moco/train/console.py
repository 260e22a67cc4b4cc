"""What a run shows: the plan, one live line, a summary at the end. All to stderr; results go to stdout."""

import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol, cast, runtime_checkable

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from moco.files import append
from moco.text import one_line, printable

BETWEEN = "  "  # the parts of a live line


@runtime_checkable
class Reporter(Protocol):
    """Where a run reports to."""

    def box(self, title: str, rows: list[tuple[str, str]]) -> None: ...
    def say(self, text: str) -> None: ...
    def live(self, *parts: str) -> None: ...
    def metrics(self, record: dict[str, Any]) -> None: ...  # a line of metrics.jsonl, as soon as it is known


class Patient:
    """A stream to which writing never fails: what cannot be written is dropped."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console:
    """Boxes, and one line that renews itself on a terminal; elsewhere a plain line every `every` seconds.

    Where the stream has gone (its reader has left, the disk is full) it falls silent.
    """

    def __init__(self, stream: IO[str] | None = None, *, every: float = 15.0):
        self.stream = Patient(stream or sys.stderr)
        self.terminal, self.every, self._shown, self._width = self.stream.isatty(), every, 0.0, 0
        self.rich = RichConsole(file=cast(IO[str], self.stream), highlight=False)

    def box(self, title: str, rows: list[tuple[str, str]]) -> None:
        self.end_live()
        if not self.terminal:
            width = max(len(name) for name, _ in rows)
            print(f"== {title}", file=self.stream)
            for name, text in rows:
                print(f"   {name:<{width}}  {one_line(text)}", file=self.stream, flush=True)
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(name, escape(one_line(text)))
        self.rich.print(Panel(table, title=title, title_align="left", expand=False))

    def say(self, text: str) -> None:
        self.end_live()
        lines = printable(text).split("\n")
        if self.terminal:
            lines = [part for line in lines for part in wrapped(line, self.rich.width)]
        print(*lines, sep="\n", file=self.stream, flush=True)

    def live(self, *parts: str) -> None:
        """Show the line that `parts` make, the most needed first: on a terminal the last ones that do not fit go."""
        now = time.monotonic()
        if now - self._shown < (0.2 if self.terminal else self.every):
            return
        self._shown = now
        if self.terminal:
            line = fitting(parts, self.rich.width - 1)
            print("\r" + line.ljust(self._width), end="", file=self.stream, flush=True)
            self._width = len(line)
        else:
            print(one_line(BETWEEN.join(parts)), file=self.stream, flush=True)

    def metrics(self, record: dict[str, Any]) -> None:
        """Shows none: `live` does."""

    def end_live(self) -> None:
        """Begin a new line where the live line is being shown."""
        if self.terminal and self._width:
            print(file=self.stream)
            self._width = 0


class Logged:
    """Passes everything on, and writes it with the time to a file: a run's train.log."""

    def __init__(self, reporter: Reporter, file: Path):
        self.reporter, self.file, self._written = reporter, file, 0.0

    def box(self, title: str, rows: list[tuple[str, str]]) -> None:
        self.reporter.box(title, rows)
        self.note(title, rows)

    def note(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Write to the file only."""
        self._write(*[f"{title}: {name}: {text}" for name, text in rows])

    def say(self, text: str) -> None:
        self.reporter.say(text)
        self._write(text)

    def live(self, *parts: str) -> None:
        self.reporter.live(*parts)
        if time.monotonic() - self._written > 15:
            self._written = time.monotonic()
            self._write(BETWEEN.join(parts))

    def metrics(self, record: dict[str, Any]) -> None:
        self.reporter.metrics(record)

    def _write(self, *lines: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError):  # the run goes on without its log
            append(self.file, "".join(f"{now} {one_line(line)}\n" for line in lines).encode("utf-8", "surrogateescape"))


class Silent:
    """Shows nothing."""

    def box(self, title: str, rows: list[tuple[str, str]]) -> None: ...
    def say(self, text: str) -> None: ...
    def live(self, *parts: str) -> None: ...
    def metrics(self, record: dict[str, Any]) -> None: ...


def wrapped(line: str, width: int) -> list[str]:
    """`line` in pieces of at most `width` characters, cut between words; a longer word, such as a path, stays whole."""
    if len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [line]


def fitting(parts: Sequence[str], width: int) -> str:
    """As many of the first `parts` as fit on a line of `width` characters; a first one that does not is cut."""
    line = one_line(parts[0]) if parts else ""
    for part in parts[1:]:
        longer = line + BETWEEN + one_line(part)
        if len(longer) > width:
            break
        line = longer
    return line[:width]
