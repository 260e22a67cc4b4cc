"""A signal makes a run finish its step, save and stop."""

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
    """Stopped by SIGINT. It is a KeyboardInterrupt too, so Ctrl-C ends a notebook cell or a program as usual."""


@dataclass
class StopFlag:
    """Set by the first SIGINT, SIGTERM or SIGUSR1."""

    number: int = 0  # of the signal; 0: none
    parent: int = field(default_factory=os.getppid)

    def received_signal(self) -> int:
        """The number of the signal, 0 for none. SIGHUP on a rank whose launcher has ended: nothing could restart it."""
        orphaned = world_size() > 1 and os.getppid() != self.parent
        return self.number or (signal.SIGHUP if orphaned else 0)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """While open, a first signal sets the flag, and a second one ends the process.

    With several ranks, a second one is ignored: the scheduler and the launcher may both send the first one.
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
