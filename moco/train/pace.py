"""How fast a run is: measured over the steps after the first one, for the ETA and for the time that is told once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from moco.text import duration, plural

MEASURED = 5.0  # [s] of steps before the time is told
SHORT = 10.0  # [s] of a run whose time is not worth telling


@dataclass
class Pace:
    """Measures the steps after the first one, which also compiles and sets up."""

    first_step: int  # this process begins after it
    total_steps: int
    now: Callable[[], float] = time.monotonic  # [s]
    _began: float = field(default=0.0, init=False)
    _told: bool = field(default=False, init=False)

    def pause(self, seconds: float) -> None:
        """Leave out time that was not spent on steps."""
        self._began += seconds

    def each(self, step: int) -> float | None:
        """Seconds a step takes, after `step`; None before the second step of this process."""
        measured = step - self.first_step - 1
        return (self.now() - self._began) / measured if measured > 0 else None

    def tell(self, step: int) -> str | None:
        """After each step: the sentence, once, when enough steps are measured; None otherwise."""
        if step == self.first_step + 1:
            self._began = self.now()
        measured, elapsed = step - self.first_step - 1, self.now() - self._began
        if self._told or measured < 1 or elapsed < MEASURED:
            return None
        self._told = True
        left = (self.total_steps - step) * elapsed / measured
        if left < SHORT:
            return None
        what = "this run" if self.first_step == 0 else "what is left of this run"
        steps = "step" if measured == 1 else plural(measured, "step")
        each = f"{elapsed / measured:.2g} s each"
        return f"{what} takes about {duration(left + elapsed)}, by the first {steps} ({each})"
