"""The watchdog ends a run that makes no progress (a dead disk, a lost rank) and prints the stack of each thread."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TIMES = {"setup": 4, "step": 1, "checkpoint": 1, "scores": 4}  # time limit of each part, in multiples of --patience
CHECKS = 20  # of the clock, per time limit
STDERR = 2  # the file descriptor, because notebooks and tests replace sys.stderr
GRACE = 86400.0  # [s] after a missed limit. Then faulthandler ends a process whose GIL is held, so that no check runs


class Watchdog:
    """Ends the process with exit code 1 if a part of the run takes too long.

    Args:
        minutes: time limit of a step; None or 0: no limit.
    """

    def __init__(self, minutes: float | None):
        self.seconds = None if not minutes else 60 * minutes
        self.at, self.closed = ("setup", time.monotonic()), threading.Event()  # the part, and its start

    def section(self, part: str) -> None:
        """Start the next part of the run, with its own time limit."""
        self.at = part, time.monotonic()  # one assignment: another thread reads it

    def watch(self) -> None:
        """Check the clock until the run ends. Runs in a thread of its own.

        Time in which the process is suspended (SIGSTOP, `scontrol suspend`) does not count: it shows as a late check.
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
    """A context in which a watchdog runs."""
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
