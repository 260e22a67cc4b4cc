"""The fault matrix: what can go wrong, how often it is tried, and what came of it.

A module of this folder that tries faults has a list `FAULTS`; `python tests/faults/matrix.py` (make faults) runs all of
them with their full counts and writes benchmarks/results/faults.json and the table of docs/reliability.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Tally:
    """What came of some tries."""

    tried: int = 0
    survived: int = 0  # ended as the matrix expects
    lost: int = 0  # anything that was lost, let in, or silently wrong


@dataclass(frozen=True)
class Fault:
    """One row of the matrix."""

    row: str  # "P1"
    name: str  # in a few words: "SIGKILL anywhere in a run"
    expected: str  # what must come of it
    guard: str  # what stands against it, and how its absence was seen: the test that fails without it
    count: int  # tries of a full run
    quick: int  # tries of every change
    run: Callable[[int, Path], Tally]  # tries, scratch folder -> what came of them
