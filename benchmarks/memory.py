"""Work in a process of its own, and its peak memory there.

VmHWM after a reset through /proc/self/clear_refs: `ru_maxrss` survives exec, so a child of a large parent would report
its parent's peak. Linux only; elsewhere, or where /proc cannot be written, memory is not known.
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
    """[MB]"""

    total: float  # of the process, torch and all
    beyond: float  # what was there before the work began


def peak(make: Callable[[], Work]) -> Peak | None:
    """The peak while the work that `make` returns is done once; `make` can be pickled, and warms up.

    None where it cannot be measured.
    """
    return alone(_peak, make)


def alone(function: Callable[..., T], *arguments: object) -> T:
    """What `function` returns in a new process, where no earlier work has left memory to be used again."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawned, torch.set_num_threads, (1,)) as pool:  # who may have processes of their own
        return pool.submit(function, *arguments).result()


def total_mb(of: Peak | None) -> float | None:
    return None if of is None else round(of.total, 1)


def beyond_mb(of: Peak | None) -> float | None:
    return None if of is None else round(of.beyond, 1)


def private_of_children() -> float | None:
    """[MB] that a child of this process has for itself, on average; None where it cannot be told."""
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
