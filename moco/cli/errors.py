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
CODES = {  # by the name of the class, so that none of them has to be imported; the first that fits counts
    "Stopped": RESUMABLE,
    "Diverged": DIVERGED,
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
    """Turn errors that have a message for the user into that message on stderr and an exit code.

    Gives the console that the command reports to.
    """
    from moco.train.console import Console

    console = Console()
    try:
        with beside(console):
            yield console
    except Exception as error:  # `Interrupted` too
        code = code_of(error)
        if code is None:
            raise
        if not getattr(error, "kinds", ()):  # otherwise the rank where it happened has said it
            console.say(f"moco: {message_of(error)}")
        raise typer.Exit(code) from error


@contextmanager
def interruptions(console: "Console", files: Sequence[Path]) -> Iterator[None]:
    """Turn Ctrl-C into a message that says what is left of the `files` that the command writes, and an exit code."""
    from moco.staged import identities, left_behind

    before = identities(files)
    try:
        yield
    except KeyboardInterrupt:
        console.say(f"moco: interrupted: {left_behind(files, before)}")
        raise typer.Exit(INTERRUPTED) from None


def code_of(error: Exception) -> int | None:
    """The exit code of an error that has a message for the user; None for a fault of ours."""
    names = {kind.__name__ for kind in type(error).__mro__} | set(getattr(error, "kinds", ()))
    return next((code for name, code in CODES.items() if name in names), None)
