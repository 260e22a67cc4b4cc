"""Report the progress of a long computation and the time that is left, while it runs."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from moco.text import duration

DELAY, EVERY = 2.0, 0.5  # [s] before the first line, and between lines


class Progress:
    """While open, pass a line on the current stage to `show` every half second, after the first two seconds.

    A separate thread does this.

    Args:
        show: called with each line.
        delay: [s] before the first line.
    """

    def __init__(self, show: Callable[[str], None] = lambda line: None, *, delay: float = DELAY):
        self._show, self._delay, self._started = show, delay, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._what, self._done, self._total, self._unit, self._start = "", 0, 0, "", self._started
        self.reported = False  # whether any line was shown

    def stage(self, what: str, total: int = 0, unit: str = "images") -> None:
        """Begin a stage of `total` units; 0: their number is not known."""
        self._what, self._done, self._total, self._unit, self._start = what, 0, total, unit, time.monotonic()

    def expect(self, total: int, unit: str) -> None:
        """Set the number of units of the current stage."""
        self._done, self._total, self._unit = 0, total, unit

    def add(self, count: int = 1) -> None:
        """Count units of the stage as done."""
        self._done += count

    @property
    def seconds(self) -> float:
        """[s] since the start."""
        return time.monotonic() - self._started

    def line(self) -> str:
        """`features: 512 of 2,000 images, 6 s left`."""
        spent, done, total = time.monotonic() - self._start, self._done, self._total
        if not total:
            return f"{self._what}, {duration(spent)}"
        left = f"{duration(spent / done * (total - done))} left" if done else f"{duration(spent)} so far"
        return f"{self._what}: {done:,} of {total:,} {self._unit}, {left}"

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        self._ended.wait(self._delay)
        while not self._ended.is_set():
            if self._what:
                self.reported = True
                self._show(self.line())
            self._ended.wait(EVERY)
