"""Ratios that can be trusted on a busy machine: process CPU time, one thread, interleaved rounds, medians."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from benchmarks import clocks

Work = Callable[[], object]
LEAST = 0.1  # [CPU s] of a turn; what is shorter is repeated


class Spent(NamedTuple):
    """[s] on one call."""

    cpu: float  # of all threads, and of processes that were started
    wall: float


@dataclass(frozen=True)
class Result:
    """Ours against a reference: `ratio` is our time over theirs, the median over the rounds. None: does not apply."""

    name: str
    against: str  # what the reference is
    ratio: float | None
    low: float | None = None  # of the rounds
    high: float | None = None
    ours_ms: float | None = None
    reference_ms: float | None = None
    rounds: int = 0
    memory_mb: float | None = None  # ours; what it is the peak of: docs of the row
    reference_memory_mb: float | None = None
    floor_share: float | None = None  # lower bound / ours: how much of our time cannot be saved
    error: float | None = None  # relative, against float64

    @property
    def speedup(self) -> float | None:
        return None if self.ratio is None else 1 / self.ratio

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"speedup": None if self.speedup is None else round(self.speedup, 3)}

    def row(self) -> str:
        """A line of the table, under `HEADER`."""
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
| what | ours / reference (spread) | speed-up | ours [ms] | reference [ms] | ours [MB] | reference [MB] | floor | reference |
|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def _shown(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


@dataclass(frozen=True)
class Row:
    """One comparison, or several that share their work: what `make bench` can run by itself."""

    name: str
    run: Callable[[int], Iterator[Result]]  # rounds -> results
    slow: bool = False  # left out of a quick run
    large: bool = False  # run when it is asked for: it downloads hundreds of megabytes


def absent(name: str, peer: str, why: str = "not installed") -> Result:
    """The row of a peer that cannot be compared with."""
    return Result(name, f"{peer}: {why}", None)


def installed(package: str) -> bool:
    return find_spec(package) is not None


def interleaved(works: Mapping[str, Work], *, rounds: int, repeat: int | None = None) -> dict[str, list[float]]:
    """CPU seconds of one call of each, `rounds` times, in turn; see `spent`."""
    return {name: cpu_of(of_it) for name, of_it in spent(works, rounds=rounds, repeat=repeat).items()}


def spent(works: Mapping[str, Work], *, rounds: int, repeat: int | None = None) -> dict[str, list[Spent]]:
    """What one call of each took, `rounds` times, in turn.

    Whatever drifts in the machine touches all of a round alike, so ratios are taken within a round.

    Args:
        repeat: calls within a turn; None: as many as take a tenth of a second.
    """
    repeats: dict[str, int] = {}
    for name, work in works.items():
        first = _turn(work, 1).cpu  # what is made once is made now
        usual = first if repeat or first > LEAST else _turn(work, 1).cpu
        repeats[name] = repeat or max(1, int(LEAST / max(usual, 1e-9)))
    times: dict[str, list[Spent]] = {name: [] for name in works}
    for _ in range(rounds):
        gc.collect()  # in no one's time
        for name, work in works.items():
            times[name].append(_turn(work, repeats[name]))
    return times


def cpu_of(turns: list[Spent]) -> list[float]:
    return [turn.cpu for turn in turns]


def wall_of(turns: list[Spent]) -> list[float]:
    return [turn.wall for turn in turns]


def _turn(work: Work, repeats: int) -> Spent:
    """Of one call, on average."""
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
    floor: list[float] | None = None,
    memory: tuple[float | None, float | None] = (None, None),
    error: float | None = None,
) -> Result:
    """What the rounds come to: seconds of each in, medians out.

    Args:
        lower bound: seconds of what cannot be saved.
        memory: [MB] ours and the reference's.
    """
    ratios = [mine / theirs for mine, theirs in zip(ours, reference, strict=True)]
    share = None
    if floor is not None:
        share = round(statistics.median(least / mine for least, mine in zip(floor, ours, strict=True)), 4)
    ratio, low, high = (round(x, 4) for x in (statistics.median(ratios), min(ratios), max(ratios)))
    mine, theirs = (round(1000 * statistics.median(column), 4) for column in (ours, reference))
    return Result(
        name, against, ratio, low, high, mine, theirs, rounds=len(ratios), memory_mb=memory[0],
        reference_memory_mb=memory[1], floor_share=share, error=error,
    )  # fmt: skip


def compare(
    name: str, ours: Work, reference: Work, *, against: str, floor: Work | None = None, rounds: int = 7
) -> Result:
    """Run both, and the floor, in turn, `rounds` times."""
    works = {"ours": ours, "reference": reference} | ({} if floor is None else {"floor": floor})
    times = interleaved(works, rounds=rounds)
    return result(name, times["ours"], times["reference"], against=against, floor=times.get("floor"))
