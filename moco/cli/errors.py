"""What can go wrong, as one message on stderr and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

FAILED, USAGE, BAD_DATA, DIVERGED, RESUMABLE = 1, 2, 3, 4, 75


@contextmanager
def errors() -> Iterator[None]:
    """Turn what can go wrong into one message on stderr and an exit code."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        if not getattr(error, "kinds", ()):  # otherwise the rank that it happened on has said it
            from moco.text import printable

            print(f"moco: {printable(str(error))}", file=sys.stderr)
        raise typer.Exit(code) from error


def _code(error: Exception) -> int | None:
    """The exit code of an error that has a message for the user; None for one that is a fault of ours."""
    from moco.data.sources.images import DataError
    from moco.distributed import RankError
    from moco.recipe import RecipeError
    from moco.train.after_step import Diverged, Stopped
    from moco.train.checkpoint import CheckpointError

    codes: list[tuple[type[Exception], int]] = [
        (Stopped, RESUMABLE), (Diverged, DIVERGED), (FloatingPointError, DIVERGED), (DataError, BAD_DATA),
        (RecipeError, USAGE), (CheckpointError, FAILED), (OSError, FAILED), (ImportError, FAILED), (RankError, FAILED),
    ]  # fmt: skip
    names = {kind.__name__ for kind in type(error).__mro__} | set(getattr(error, "kinds", ()))
    return next((code for kind, code in codes if kind.__name__ in names), None)
