"""What a command reports on stderr: boxes, messages, one live line. Results go to stdout."""

import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from moco.text import one_line, printable
from moco.train.reporters import SEPARATOR


class Unfailing:
    """A stream that drops what cannot be written, without an error."""

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
    """Reports to stderr. On a terminal the live line replaces itself; elsewhere it is printed every `every` seconds.

    It prints nothing where the stream cannot be written: its reader has ended, the disk is full.
    """

    def __init__(self, stream: IO[str] | None = None, *, every: float = 15.0):
        self.stream = Unfailing(stream or sys.stderr)
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
            lines = [part for line in lines for part in wrap_line(line, self.rich.width)]
        print(*lines, sep="\n", file=self.stream, flush=True)

    def live(self, *parts: str) -> None:
        """Show `parts` as one line, most important first: on a terminal, parts that do not fit are left out."""
        now = time.monotonic()
        if now - self._shown < (0.2 if self.terminal else self.every):
            return
        self._shown = now
        if self.terminal:
            line = fit_parts(parts, self.rich.width - 1)
            print("\r" + line.ljust(self._width), end="", file=self.stream, flush=True)
            self._width = len(line)
        else:
            print(one_line(SEPARATOR.join(parts)), file=self.stream, flush=True)

    def metrics(self, record: dict[str, Any]) -> None:
        """Ignored: `live` shows the progress."""

    def end_live(self) -> None:
        """Start a new line after a live line."""
        if self.terminal and self._width:
            print(file=self.stream)
            self._width = 0


def wrap_line(line: str, width: int) -> list[str]:
    """`line` wrapped at `width` characters, between words; a longer word, such as a path, stays whole."""
    if len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [line]


def fit_parts(parts: Sequence[str], width: int) -> str:
    """As many of the first `parts` as fit on a line of `width` characters; the first one is cut if it is too long."""
    line = one_line(parts[0]) if parts else ""
    for part in parts[1:]:
        longer = line + SEPARATOR + one_line(part)
        if len(longer) > width:
            break
        line = longer
    return line[:width]
