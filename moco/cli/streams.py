"""stdin, stdout and stderr of a command, also if they are closed, full, or have no reader."""

import codecs
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

from moco.startup import end_process

if TYPE_CHECKING:
    from moco.train.console import Console

PACKAGE = Path(__file__).parents[1]
ASCII_HANDLER = "moco.ascii"  # name of the error handler of text encodings
ASCII = {"\N{PLUS-MINUS SIGN}": "+-", "\N{MULTIPLICATION SIGN}": "x", "\N{HORIZONTAL ELLIPSIS}": "..."}
NO_READER = 141  # exit code of a program whose output has lost its reader, in a shell: 128 + SIGPIPE


def open_streams() -> None:
    """Open /dev/null for each closed standard stream, so that no other file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def replace_missing_characters() -> None:
    """Make stdout and stderr print a replacement for characters that their encoding lacks."""
    codecs.register_error(ASCII_HANDLER, replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=ASCII_HANDLER)


def silence_pillow() -> None:
    """Hide Pillow's warnings: an unusable file is reported as a bad image, with the reason."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for library in ("PIL", "tifffile"):  # what they log of damaged files; our own messages say it
        logging.getLogger(library).addHandler(logging.NullHandler())


def replacement(error: UnicodeError) -> tuple[str, int]:
    """The replacement of characters that an encoding lacks: `+-` for plus-minus, an escape for most."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in missing), error.end


class NotWritten(Exception):
    """stdout could not be written: its reader has ended, the disk is full, ..."""


class Results:
    """A stdout that raises `NotWritten` where it cannot be written."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise NotWritten(error.strerror) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise NotWritten(error.strerror) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run_and_flush(command: Callable[[], object]) -> NoReturn:
    """Run `command`, flush its output, and exit with its code, or with another one if the output cannot be written.

    A reader that has ended (`moco recipes | head -1`) is not reported as an error; a full disk is.
    """
    code: Any = 0
    with redirect_stdout(cast(IO[str], Results(sys.stdout))):
        try:
            command()
        except SystemExit as end:
            code = end.code
        except NotWritten as error:
            code = _not_written(error)
        try:
            sys.stdout.flush()
        except NotWritten as error:
            code = code or _not_written(error)
            discard(sys.stdout)
    try:
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)
    raise SystemExit(code)


def run_as_rank(command: Callable[[], object]) -> NoReturn:
    """As `run_and_flush`, in one of several ranks, whose process has threads of gloo (see `end_process`)."""
    code = 1
    try:
        run_and_flush(command)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else code
    except BaseException:
        traceback.print_exc()
    end_process(code)


def _not_written(error: NotWritten) -> int:
    """The exit code. Prints the reason, unless the reader has ended."""
    if isinstance(error.__cause__, BrokenPipeError):
        return NO_READER
    complain(f"moco: the result could not be written to stdout: {error}")
    return 1


def complain(text: str) -> None:
    """Print `text` to stderr, if that can be written."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def discard(stream: IO[str]) -> None:
    """Send the rest of `stream` to /dev/null, so that Python prints no error at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class EndsLine:
    """A stderr for libraries: ends the console's live line before it writes."""

    def __init__(self, stream: IO[str], console: "Console"):
        self._stream, self._console = stream, console

    def write(self, text: str) -> int:
        self._console.end_live()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def beside(console: "Console") -> Iterator[None]:
    """While open, warnings and messages of libraries start on a new line, not in the live line of `console`.

    Our own warnings are shown as messages.
    """
    show = warnings.showwarning

    def show_ours(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
        if Path(filename).is_relative_to(PACKAGE):
            console.say(f"caution: {message}")
        else:
            show(message, category, filename, lineno, *more)

    warnings.showwarning = show_ours
    with redirect_stderr(cast(IO[str], EndsLine(sys.stderr, console))):
        try:
            yield
        finally:
            warnings.showwarning = show
            console.end_live()
