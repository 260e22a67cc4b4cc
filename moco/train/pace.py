"""Measure the time of a step, for the ETA and for the estimate that a run reports once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from moco.text import duration, plural

MEASURED = 5.0  # [s] of steps to measure before the estimate is reported
SHORT = 10.0  # [s]; if less time is left, there is no estimate


@dataclass
class Pace:
    """Measures the time of steps. The first step is left out, because it includes compilation and setup.

    Args:
        warming_up: whether steps still take longer than later ones. They are left out, too.
    """

    first_step: int  # the clock's step at the start of this process
    total_steps: int
    now: Callable[[], float] = time.monotonic  # [s]
    warming_up: Callable[[], bool] = lambda: False
    _began: float = field(default=0.0, init=False)  # [s] when the measurement began
    _from: int = field(default=0, init=False)  # the step after which it began
    _first_ended: float = field(default=0.0, init=False)  # [s]
    _reported: bool = field(default=False, init=False)

    def pause(self, seconds: float) -> None:
        """Exclude time that was not spent on steps."""
        self._began += seconds
        self._first_ended += seconds

    def each(self, step: int) -> float | None:
        """Mean seconds of a step up to `step`; None before the second step of this process."""
        measured = step - max(self._from, self.first_step + 1)
        return (self.now() - self._began) / measured if measured > 0 else None

    def estimate(self, step: int) -> str | None:
        """Called after each step. Returns the message with the estimate once, when enough is measured; else None."""
        now = self.now()
        if step == self.first_step + 1:
            self._first_ended = now
        if step == self.first_step + 1 or self.warming_up():
            self._began, self._from = now, step
        measured, elapsed = step - self._from, now - self._began
        if self._reported or measured < 1 or elapsed < MEASURED:
            return None
        self._reported = True
        left = (self.total_steps - step) * elapsed / measured
        if left < SHORT:
            return None
        what = "this run" if self.first_step == 0 else "the rest of this run"
        steps = "step" if measured == 1 else plural(measured, "step")
        each = f"{elapsed / measured:.2g} s each"
        return (
            f"{what} takes about {duration(left + now - self._first_ended)}, estimated from the first {steps} ({each})"
        )
