"""The progress of a command on stderr: a live line on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moco.evaluate.progress import Progress
    from moco.train.console import Console


@contextmanager
def show_progress(console: "Console") -> "Iterator[Progress]":
    """While open, shows the progress of its stage after two seconds, and at the end the time taken."""
    from moco.evaluate.progress import Progress
    from moco.text import duration

    progress = Progress(console.live)
    try:
        with progress:
            yield progress
    finally:
        if progress.reported:
            console.say(f"took {duration(progress.seconds)}")
