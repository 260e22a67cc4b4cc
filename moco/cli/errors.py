"""Errors of commands: one message on stderr and an exit code. Nothing here imports torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moco.cli.streams import beside
from moco.text import message_of

if TYPE_CHECKING:
    from moco.train.console import Console

FAILED, USAGE, BAD_DATA, DIVERGED, RESUMABLE, INTERRUPTED = 1, 2, 3, 4, 75, 130
CODES = {  # by class name, so that no class must be imported; the first match counts
    "Stopped": RESUMABLE,
    "StoreError": RESUMABLE,
    "Diverged": DIVERGED,
    "Collapsed": DIVERGED,
    "FloatingPointError": DIVERGED,
    "DataError": BAD_DATA,
    "RecipeError": USAGE,
    "CheckpointError": FAILED,
    "OSError": FAILED,
    "ImportError": FAILED,
    "RankError": FAILED,
}


@contextmanager
def errors() -> "Iterator[Console]":
    """Turn errors with a message for the user into that message on stderr and an exit code. Yields the console."""
    from moco.train.console import Console

    console = Console()
    try:
        with beside(console):
            yield console
    except Exception as error:  # `Interrupted` too
        code = code_of(error)
        if code is None:
            raise
        if not getattr(error, "kinds", ()):  # else the rank that raised it has printed it
            console.say(f"moco: {message_of(error)}")
        raise typer.Exit(code) from error


@contextmanager
def interruptions(console: "Console", files: Sequence[Path]) -> Iterator[None]:
    """Turn Ctrl-C into an exit code and a message that says which of the `files` exist."""
    from moco.atomic_output import describe_leftovers, identities

    before = identities(files)
    try:
        yield
    except KeyboardInterrupt:
        console.say(f"moco: interrupted: {describe_leftovers(files, before)}")
        raise typer.Exit(INTERRUPTED) from None


def code_of(error: Exception) -> int | None:
    """The exit code of an error with a message for the user; None for any other error."""
    names = {kind.__name__ for kind in type(error).__mro__} | set(getattr(error, "kinds", ()))
    return next((code for name, code in CODES.items() if name in names), None)
