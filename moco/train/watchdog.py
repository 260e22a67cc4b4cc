"""The watchdog ends a run that makes no progress (a dead disk, a lost rank) and prints the stack of each thread."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TIMES = {"setup": 4, "step": 1, "checkpoint": 1, "scores": 4}  # how many times the patience each part may take
CHECKS = 20  # of the clock, within the limit
STDERR = 2  # the process's own: a notebook or a test may have put another in the place of sys.stderr
GRACE = 86400.0  # [s] after which a process that cannot look at the clock is ended: it keeps the GIL, or was suspended


class Watchdog:
    """Ends the process, with code 1, when a part of the run takes longer than it may.

    Args:
        minutes: patience with a step; None: for ever.
    """

    def __init__(self, minutes: float | None):
        self.seconds = None if not minutes else 60 * minutes
        self.at, self.closed = ("setup", time.monotonic()), threading.Event()  # the part, and since when

    def section(self, part: str) -> None:
        """Start the clock for this part of the run."""
        self.at = part, time.monotonic()  # in one write: another thread reads it

    def watch(self) -> None:
        """Check the clock until the run is over; runs in a thread of its own.

        A suspended process (SIGSTOP, `scontrol suspend`) does not look: time in which nobody looked does not count.
        """
        assert self.seconds is not None
        seen, unseen, due = self.at, 0.0, time.monotonic()
        while True:
            at, now = self.at, time.monotonic()
            (part, since), limit = at, self.seconds * TIMES[at[0]]
            if at is not seen:
                seen, unseen = at, 0.0
            if now - due > limit / CHECKS:
                unseen += min(now - due, now - since)
            left = since + unseen + limit - now
            if left <= 0 and at is self.at:
                self._end(part, limit)
            faulthandler.dump_traceback_later(max(left, 0) + GRACE, exit=True, file=STDERR)
            wait = min(max(left, 0.01), limit / CHECKS)
            due = now + wait
            if self.closed.wait(wait):
                faulthandler.cancel_dump_traceback_later()
                return

    def _end(self, part: str, limit: float) -> None:
        print(
            f"moco: no progress for {limit / 60:g} minutes (in: {part}); the stack of each thread follows. Run the "
            "same command to resume from the newest checkpoint; --patience MINUTES waits longer, 0 forever",
            file=sys.__stderr__, flush=True,
        )  # fmt: skip
        faulthandler.dump_traceback(all_threads=True, file=STDERR)
        os._exit(1)


@contextmanager
def watchdog(minutes: float | None) -> Iterator[Watchdog]:
    """Watch the run while open."""
    dog = Watchdog(minutes)
    if dog.seconds is None:
        yield dog
        return
    thread = threading.Thread(target=dog.watch, name="moco-watchdog", daemon=True)
    thread.start()
    try:
        yield dog
    finally:
        dog.closed.set()
        thread.join()
