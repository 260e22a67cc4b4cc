"""Ratios that can be trusted on a busy machine: process CPU time, one thread, interleaved rounds, medians."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Result:
    """Ours against a reference: `ratio` is our time over theirs, the median over the rounds."""

    name: str
    against: str
    ratio: float
    low: float
    high: float
    ours_ms: float
    reference_ms: float

    @property
    def speedup(self) -> float:
        return 1 / self.ratio

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"speedup": round(self.speedup, 3)}

    def row(self) -> str:
        return (
            f"| {self.name} | {self.ratio:.2f} ({self.low:.2f}-{self.high:.2f}) | {self.speedup:.1f} x | "
            f"{self.ours_ms:.2f} | {self.reference_ms:.2f} | {self.against} |"
        )


def compare(
    name: str, ours: Callable[[], object], reference: Callable[[], object], *, against: str, rounds: int = 7
) -> Result:
    """Run both in turn, `rounds` times, each repeated so that a turn takes a tenth of a second or more."""
    ours(), reference()  # what is made once is made now
    repeats = [max(1, int(0.1 / max(_seconds(work, 1), 1e-9))) for work in (ours, reference)]
    pairs = [(_seconds(ours, repeats[0]), _seconds(reference, repeats[1])) for _ in range(rounds)]
    ratios = [mine / theirs for mine, theirs in pairs]
    mine, theirs = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    return Result(
        name, against, *(round(x, 4) for x in (statistics.median(ratios), min(ratios), max(ratios), mine, theirs))
    )


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats
