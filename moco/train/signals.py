"""Signals ask a run to stop; it finishes its step, saves and stops."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from moco.distributed import world_size
from moco.stop_signals import STOP_SIGNALS


class Stopped(Exception):
    """The run was asked to stop, has saved, and can be resumed."""


class Interrupted(Stopped, KeyboardInterrupt):
    """The same by SIGINT: Ctrl-C ends a cell of a notebook, and a program, as it does elsewhere."""


@dataclass
class StopFlag:
    """Set by the first SIGINT, SIGTERM or SIGUSR1."""

    number: int = 0  # of the signal; 0: none came
    parent: int = field(default_factory=os.getppid)

    def look(self) -> int:
        """The signal that came. Ranks whose launcher has gone, which is all that could start them again, stop too."""
        orphaned = world_size() > 1 and os.getppid() != self.parent
        return self.number or (signal.SIGHUP if orphaned else 0)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """While open, a first signal sets the flag, and a second one ends the process at once.

    Not on ranks: they may get the first one twice, from a scheduler and from their launcher; the launcher ends them.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # only the main thread can handle signals
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if flag.number and world_size() == 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        flag.number = number

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
