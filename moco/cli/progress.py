"""How far a command is, on stderr: a line that renews itself on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moco.evaluate.progress import Progress
    from moco.train.console import Console


@contextmanager
def shown_progress(console: "Console") -> "Iterator[Progress]":
    """While open, tells how far its stage is, once two seconds have passed; at the end, how long it has taken."""
    from moco.evaluate.progress import Progress
    from moco.text import duration

    progress = Progress(console.live)
    try:
        with progress:
            yield progress
    finally:
        if progress.reported:
            console.say(f"{duration(progress.seconds)} in all")
