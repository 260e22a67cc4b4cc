"""Imports are looked through by the garbage collector over and over: a tenth of the time that importing torch takes."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """What is made meanwhile stays, as modules do: the garbage collector leaves it alone, now and later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
