"""How far a long computation has come, told while it runs, with the time that is left."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from moco.text import duration

DELAY, EVERY = 2.0, 0.5  # [s] before the first line, and between lines


class Progress:
    """While open, tells `show` how far the present stage is, from a thread of its own, once two seconds have passed.

    Args:
        show: takes a line, as often as it comes.
    """

    def __init__(self, show: Callable[[str], None] = lambda line: None, *, patience: float = DELAY):
        self._show, self._patience, self._begun = show, patience, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._what, self._done, self._total, self._unit, self._start = "", 0, 0, "", self._begun
        self.told = False  # whether any line was shown

    def stage(self, what: str, total: int = 0, unit: str = "images") -> None:
        """Begin a stage of `total` units; 0: nobody knows how many."""
        self._what, self._done, self._total, self._unit, self._start = what, 0, total, unit, time.monotonic()

    def expect(self, total: int, unit: str) -> None:
        """The present stage has `total` units, as it turns out."""
        self._done, self._total, self._unit = 0, total, unit

    def add(self, count: int = 1) -> None:
        """So many units more of the stage are done."""
        self._done += count

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

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

    def _tell(self) -> None:
        self._ended.wait(self._patience)
        while not self._ended.is_set():
            if self._what:
                self.told = True
                self._show(self.line())
            self._ended.wait(EVERY)
