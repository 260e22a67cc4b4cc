"""Disable garbage collection during imports: it takes a tenth of the time of importing torch (0.15 to 0.3 s)."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Import modules inside: no garbage collection runs, and what was created is not scanned later either."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
