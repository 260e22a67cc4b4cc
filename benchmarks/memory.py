"""Run work in a new process and measure its peak memory.

The peak is VmHWM, after a reset through /proc/self/clear_refs. `ru_maxrss` cannot be used: it survives exec, so the
child of a large process would report its parent's peak. Linux only; where /proc cannot be written, the result is None.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from benchmarks import clocks
from benchmarks.measure import Work

T = TypeVar("T")


class Peak(NamedTuple):
    """Peak memory [MB]."""

    total: float  # of the process, torch included
    beyond: float  # more than before the work


def peak(make: Callable[[], Work]) -> Peak | None:
    """The peak during one call of the work that `make` returns. `make` must be picklable.

    None if it cannot be measured.
    """
    return alone(_peak, make)


def alone(function: Callable[..., T], *arguments: object) -> T:
    """The result of `function` in a new process, where no memory freed by earlier work can be reused."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, spawned, torch.set_num_threads, (1,)
    ) as pool:  # unlike Pool's, its workers may have children
        return pool.submit(function, *arguments).result()


def total_mb(of: Peak | None) -> float | None:
    return None if of is None else round(of.total, 1)


def beyond_mb(of: Peak | None) -> float | None:
    return None if of is None else round(of.beyond, 1)


def private_of_children() -> float | None:
    """Mean private memory [MB] of the children of this process; None if it cannot be measured."""
    sizes = []
    for child in clocks.children(os.getpid()):
        try:
            lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024)
    return sum(sizes) / len(sizes) if sizes else None


def _peak(make: Callable[[], Work]) -> Peak | None:
    work = make()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _high_water()
        work()
        after = _high_water()
    except OSError:
        return None
    return Peak(after, after - before)


def _high_water() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
