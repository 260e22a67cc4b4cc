"""Reliable ratios on a busy machine: process CPU time, one thread, interleaved rounds, medians."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from benchmarks import clocks

Work = Callable[[], object]
MIN_TURN = 0.1  # [CPU s] shorter work is repeated within a turn


class Spent(NamedTuple):
    """The time of one call [s]."""

    cpu: float  # of all threads, child processes included
    wall: float


@dataclass(frozen=True)
class Result:
    """Ours against a reference. `ratio`: our time / theirs, the median over the rounds. None: does not apply."""

    name: str
    against: str  # what the reference is
    ratio: float | None
    low: float | None = None  # smallest and largest ratio of the rounds
    high: float | None = None
    ours_ms: float | None = None
    reference_ms: float | None = None
    rounds: int = 0
    memory_mb: float | None = None  # ours; which memory it is says the function of the row
    reference_memory_mb: float | None = None
    floor_share: float | None = None  # lower bound / ours: the part of our time that cannot be saved
    error: float | None = None  # relative error of the gradient, against float64

    @property
    def speedup(self) -> float | None:
        return None if self.ratio is None else 1 / self.ratio

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"speedup": None if self.speedup is None else round(self.speedup, 3)}

    def row(self) -> str:
        """A row of the table with the header `HEADER`."""
        spread = "" if self.low is None or self.high is None else f" ({self.low:.2f}-{self.high:.2f})"
        cells = [
            self.name,
            "-" if self.ratio is None else f"{self.ratio:.2f}{spread}",
            _shown(self.speedup, ".1f", " x"),
            _shown(self.ours_ms, ".2f"),
            _shown(self.reference_ms, ".2f"),
            _shown(self.memory_mb, ".0f"),
            _shown(self.reference_memory_mb, ".0f"),
            _shown(self.floor_share, ".0%"),
            self.against if self.error is None else f"{self.against}; gradient within {self.error:.0e}",
        ]
        return f"| {' | '.join(cells)} |"


HEADER = """\
| what | ours / reference (spread) | speed-up | ours [ms] | reference [ms] | ours [MB] | reference [MB] | lower bound / ours | reference |
|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def _shown(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


@dataclass(frozen=True)
class Row:
    """One comparison, or several that share their work. `make bench` can run each row alone."""

    name: str
    run: Callable[[int], Iterator[Result]]  # rounds -> results
    slow: bool = False  # not in a quick run
    large: bool = False  # only with --large or by name: downloads hundreds of megabytes


def absent(name: str, peer: str, why: str = "not installed") -> Result:
    """The row of a peer that is not available."""
    return Result(name, f"{peer}: {why}", None)


def installed(package: str) -> bool:
    return find_spec(package) is not None


def interleaved(works: Mapping[str, Work], *, rounds: int, repeat: int | None = None) -> dict[str, list[float]]:
    """CPU seconds of one call of each work, in `rounds` interleaved rounds; see `spent`."""
    return {name: cpu_of(of_it) for name, of_it in spent(works, rounds=rounds, repeat=repeat).items()}


def spent(works: Mapping[str, Work], *, rounds: int, repeat: int | None = None) -> dict[str, list[Spent]]:
    """The time of one call of each work, in `rounds` interleaved rounds.

    Changes in the machine's speed affect all works of a round alike, so ratios are computed within rounds.

    Args:
        repeat: calls per turn; None: as many as take a tenth of a second.
    """
    repeats: dict[str, int] = {}
    for name, work in works.items():
        first = _turn(work, 1).cpu  # includes one-time initialization
        usual = first if repeat or first > MIN_TURN else _turn(work, 1).cpu
        repeats[name] = repeat or max(1, int(MIN_TURN / max(usual, 1e-9)))
    times: dict[str, list[Spent]] = {name: [] for name in works}
    for _ in range(rounds):
        gc.collect()  # not measured
        for name, work in works.items():
            times[name].append(_turn(work, repeats[name]))
    return times


def cpu_of(turns: list[Spent]) -> list[float]:
    return [turn.cpu for turn in turns]


def wall_of(turns: list[Spent]) -> list[float]:
    return [turn.wall for turn in turns]


def _turn(work: Work, repeats: int) -> Spent:
    """The mean time of one call."""
    cpu, wall = clocks.cpu(), time.perf_counter()
    for _ in range(repeats):
        work()
    return Spent((clocks.cpu() - cpu) / repeats, (time.perf_counter() - wall) / repeats)


def result(
    name: str,
    ours: list[float],
    reference: list[float],
    *,
    against: str,
    lower_bound: list[float] | None = None,
    memory: tuple[float | None, float | None] = (None, None),
    error: float | None = None,
) -> Result:
    """The medians over the rounds.

    Args:
        ours, reference: seconds in each round.
        lower_bound: seconds of the lower bound: the part of the work that cannot be avoided.
        memory: [MB] ours and the reference's.
    """
    ratios = [mine / theirs for mine, theirs in zip(ours, reference, strict=True)]
    share = None
    if lower_bound is not None:
        share = round(statistics.median(least / mine for least, mine in zip(lower_bound, ours, strict=True)), 4)
    ratio, low, high = (round(x, 4) for x in (statistics.median(ratios), min(ratios), max(ratios)))
    mine, theirs = (round(1000 * statistics.median(column), 4) for column in (ours, reference))
    return Result(
        name, against, ratio, low, high, mine, theirs, rounds=len(ratios), memory_mb=memory[0],
        reference_memory_mb=memory[1], floor_share=share, error=error,
    )  # fmt: skip


def compare(
    name: str, ours: Work, reference: Work, *, against: str, lower_bound: Work | None = None, rounds: int = 7
) -> Result:
    """Measure both, and the lower bound, in `rounds` interleaved rounds."""
    works = {"ours": ours, "reference": reference} | ({} if lower_bound is None else {"lower_bound": lower_bound})
    times = interleaved(works, rounds=rounds)
    return result(name, times["ours"], times["reference"], against=against, lower_bound=times.get("lower_bound"))
