"""Measure the time of a step, for the ETA and for the estimate that a run reports once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from moco.text import duration, plural

MEASURED = 5.0  # [s] of steps to measure before the estimate is reported
SHORT = 10.0  # [s]; if less time is left, there is no estimate


@dataclass
class Pace:
    """Measures the time of steps. The first step is left out, because it includes compilation and setup."""

    first_step: int  # the clock's step at the start of this process
    total_steps: int
    now: Callable[[], float] = time.monotonic  # [s]
    _began: float = field(default=0.0, init=False)
    _reported: bool = field(default=False, init=False)

    def pause(self, seconds: float) -> None:
        """Exclude time that was not spent on steps."""
        self._began += seconds

    def each(self, step: int) -> float | None:
        """Mean seconds of a step up to `step`; None before the second step of this process."""
        measured = step - self.first_step - 1
        return (self.now() - self._began) / measured if measured > 0 else None

    def estimate(self, step: int) -> str | None:
        """Called after each step. Returns the message with the estimate once, when enough is measured; else None."""
        if step == self.first_step + 1:
            self._began = self.now()
        measured, elapsed = step - self.first_step - 1, self.now() - self._began
        if self._reported or measured < 1 or elapsed < MEASURED:
            return None
        self._reported = True
        left = (self.total_steps - step) * elapsed / measured
        if left < SHORT:
            return None
        what = "this run" if self.first_step == 0 else "the rest of this run"
        steps = "step" if measured == 1 else plural(measured, "step")
        each = f"{elapsed / measured:.2g} s each"
        return f"{what} takes about {duration(left + elapsed)}, estimated from the first {steps} ({each})"
