"""stdin, stdout and stderr of a command, also where they are closed, full, or read by nobody."""

import codecs
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from moco.train.console import Console

SPELLED = "moco.spelled"  # name of an error handler of encoders
ASCII = {"\N{PLUS-MINUS SIGN}": "+-", "\N{MULTIPLICATION SIGN}": "x", "\N{HORIZONTAL ELLIPSIS}": "..."}
NOT_READ = 141  # the exit code that a shell gives a program whose output nobody reads: 128 + SIGPIPE


def open_streams() -> None:
    """Open /dev/null for each standard stream that is closed, so that no file of ours takes its number."""
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


def spell_missing_characters() -> None:
    """Let stdout and stderr spell a character that their encoding has not, where that would be an error."""
    codecs.register_error(SPELLED, spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=SPELLED)


def silence_pillow() -> None:
    """Pillow's warnings are not shown: a file that cannot be used is named as a bad image, with the reason."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def spelled(error: UnicodeError) -> tuple[str, int]:
    """What is written instead of characters that an encoding has not: `+-` for plus-minus, an escape for most."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in missing), error.end


class NotWritten(Exception):
    """What was printed could not be written to stdout: its reader has gone, the disk is full, ..."""


class Results:
    """A stdout that says by its own error that it could not be written to."""

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
    """Run `command`, write what it has printed, and exit with its code, or with one for what could not be written.

    A reader of stdout that has gone (`moco recipes | head -1`) is no error to talk about; a full disk is.
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


def _not_written(error: NotWritten) -> int:
    """The exit code; why is said where somebody wants to know."""
    if isinstance(error.__cause__, BrokenPipeError):
        return NOT_READ
    complain(f"moco: the result could not be written to stdout: {error}")
    return 1


def complain(text: str) -> None:
    """Print `text` to stderr, if it takes it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def discard(stream: IO[str]) -> None:
    """Send to /dev/null what is left of `stream`, so that Python does not complain at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class EndsLine:
    """A stderr for everybody but the console: ends the console's live line before anything is written."""

    def __init__(self, stream: IO[str], console: "Console"):
        self._stream, self._console = stream, console

    def write(self, text: str) -> int:
        self._console.end_live()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def beside(console: "Console") -> Iterator[None]:
    """While open, warnings and messages of libraries do not run into the live line of `console`."""
    with redirect_stderr(cast(IO[str], EndsLine(sys.stderr, console))):
        try:
            yield
        finally:
            console.end_live()
