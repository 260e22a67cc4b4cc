"""Time and memory of work on a device: CUDA events, interleaved rounds, medians."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

Work = Callable[[], object]
MIN_TURN_MS = 60.0  # shorter work is repeated within a turn
WARM_UP = 4  # calls before the first turn, after the one that compiles


@dataclass(frozen=True)
class Bench:
    """Where the parts run, and how large they are."""

    device: torch.device
    toy: bool = False  # sizes for a dry run on a CPU
    rounds: int = 5
    only_compile: bool = False  # call each compiled variant, so that torch's cache on the disk has its kernels

    def size(self, full: int, toy: int) -> int:
        return toy if self.toy else full

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Measurement:
    """One variant of a part. Times are of one call: the median over the rounds, the smallest and the largest."""

    part: str
    variant: str
    ms: float | None = None
    low: float | None = None
    high: float | None = None
    rate: float | None = None  # images (or what `unit` names) a second
    unit: str = "images"
    peak_mb: float | None = None  # most memory in use during a call beyond what was in use before it
    facts: dict[str, Any] | None = None  # what else was measured
    error: str | None = None  # why there is no result

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def with_facts(self, **facts: Any) -> "Measurement":
        return replace(self, facts=(self.facts or {}) | facts)


@dataclass(frozen=True)
class Part:
    """Measurements that share their preparation. Each part runs alone, and its failure stops no other."""

    name: str
    run: Callable[[Bench], Iterator[Measurement]]


def compare(
    part: str,
    works: Mapping[str, Callable[[], Work]],
    bench: Bench,
    *,
    count: int | None = None,
    unit: str = "images",
) -> Iterator[Measurement]:
    """Prepare each variant, then time one call of each in interleaved rounds. A variant that fails is an error.

    Args:
        works: makes each variant's work.
        count: images, or what `unit` names, in one call.
    """
    ready: dict[str, Work] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, make in works.items():
        if bench.only_compile and "compiled" not in name:
            continue
        try:
            ready[name] = make()
            start = time.perf_counter()
            ready[name]()
            bench.synchronize()
            facts[name] = {"first_call_s": round(time.perf_counter() - start, 2)}
            if bench.only_compile:
                continue
            for _ in range(1 if bench.toy else WARM_UP):
                ready[name]()
            facts[name]["peak_mb"] = peak_mb(ready[name], bench)
        except Exception as error:
            ready.pop(name, None)
            yield Measurement(part, name, error=shown(error))
    if bench.only_compile:
        return
    for name, times in rounds_of(ready, bench).items():
        middle, memory = statistics.median(times), facts[name].pop("peak_mb")
        yield Measurement(
            part, name, round(middle, 4), round(min(times), 4), round(max(times), 4),
            rate=None if count is None else round(1000 * count / middle, 1), unit=unit, peak_mb=memory,
            facts=facts[name],
        )  # fmt: skip


def rounds_of(works: Mapping[str, Work], bench: Bench) -> dict[str, list[float]]:
    """Milliseconds of one call of each work, in interleaved rounds."""
    repeats: dict[str, int] = {}
    for name, work in works.items():
        repeats[name] = 1 if bench.toy else max(1, min(200, int(MIN_TURN_MS / max(1e-3, turn(work, 1, bench)))))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(bench.rounds):
        for name, work in works.items():
            times[name].append(turn(work, repeats[name], bench))
    return times


def turn(work: Work, repeats: int, bench: Bench) -> float:
    """Milliseconds of one call, the mean over `repeats`: between two CUDA events, or by the clock on a CPU."""
    bench.synchronize()
    if bench.device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return 1000 * (time.perf_counter() - start) / repeats
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(repeats):
        work()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / repeats


def peak_mb(work: Work, bench: Bench) -> float | None:
    """Most memory [MB] in use during a call beyond what was in use before it; None on a CPU."""
    if bench.device.type != "cuda":
        return None
    gc.collect()
    bench.synchronize()
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device)
    work()
    bench.synchronize()
    return round((torch.cuda.max_memory_allocated(bench.device) - before) / 1e6, 1)


def shown(error: BaseException) -> str:
    """One line for a table."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
