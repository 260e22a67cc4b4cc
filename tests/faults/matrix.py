"""The fault matrix: what can go wrong, how often it is tried, and what came of it.

    make faults, or python -m tests.faults.matrix [--quick] [--only P1 D2 ...] [--jobs N]

A module of this folder that tries faults has a list `FAULTS`; this runs all of them with their full counts, each in a
process of its own, and writes benchmarks/results/faults.json and the table of docs/reliability.md.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moco.data.augment import cpu

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "faults.json", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- the table: make faults -->", "<!-- end of the table -->"


@dataclass
class Tally:
    """What came of some tries."""

    tried: int = 0
    survived: int = 0  # ended as the matrix expects
    lost: int = 0  # anything that was lost, let in, or silently wrong

    def __iadd__(self, good: bool) -> "Tally":
        """One more try."""
        self.tried, self.survived, self.lost = self.tried + 1, self.survived + good, self.lost + (not good)
        return self


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

    @property
    def title(self) -> str:
        return f"{self.row} {self.name}"


def modules() -> list[str]:
    """Names of the modules that try faults."""
    files = sorted(HERE.glob("*.py"))
    return [file.stem for file in files if not file.name.startswith("test_") and "\nFAULTS" in file.read_text()]


def faults(only: list[str], module: str | None = None) -> list[Fault]:
    """All of them, or those of some rows or of one module, in the order of the matrix."""
    names = modules() if module is None else [module]
    found = [fault for name in names for fault in importlib.import_module(f"tests.faults.{name}").FAULTS]
    return sorted((fault for fault in found if not only or fault.row in only), key=lambda fault: _place(fault.row))


def _place(row: str) -> tuple[int, int, str]:
    return "PDINS".find(row[:1]), int("".join(filter(str.isdigit, row)) or 0), row


class Try:
    """Tries of a fault, in a fork with a scratch folder of its own."""

    def __init__(self, fault: Fault, count: int):
        self.fault, self.count, self.start = fault, count, time.monotonic()
        self.scratch = Path(tempfile.mkdtemp(prefix="faults-"))
        sys.stdout.flush()
        self.process = os.fork()
        if self.process == 0:
            try:
                tally = fault.run(count, self.scratch)
                (self.scratch / "tally.json").write_text(json.dumps(vars(tally)))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)

    def result(self) -> dict:
        """A row of faults.json, once the process has ended; the scratch folder is removed."""
        answer = self.scratch / "tally.json"
        lost = {"tried": self.count, "survived": 0, "lost": self.count}
        tally = json.loads(answer.read_text()) if answer.exists() else lost
        shutil.rmtree(self.scratch, ignore_errors=True)
        return {"fault": self.fault.title} | tally | {"seconds": round(time.monotonic() - self.start, 1)}


def tried(chosen: list[Fault], *, quick: bool, jobs: int) -> Iterator[dict]:
    """What came of each fault, as they end; so many at a time."""
    waiting, running = list(chosen), dict[int, Try]()
    while waiting or running:
        while waiting and len(running) < jobs:
            fault = waiting.pop(0)
            one = Try(fault, fault.quick if quick else fault.count)
            running[one.process] = one
        process, _ = os.wait()
        if process in running:  # torch may have processes of its own
            yield running.pop(process).result()


def table(results: list[dict]) -> str:
    """The rows of the matrix with what came of them, in Markdown."""
    about = {fault.title: fault for fault in faults([])}
    lines = ["| | fault | expected | guard, and how its absence was seen | tried | survived | lost |"]
    lines.append("|---|---|---|---|---|---|---|")
    for one in results:
        if fault := about.get(one["fault"]):
            counts = f"{one['tried']:,} | {one['survived']:,} | {one['lost']:,}"
            lines.append(f"| {fault.row} | {fault.name} | {fault.expected} | {fault.guard} | {counts} |")
    return "\n".join(lines) + "\n"


def published(results: list[dict], page: str) -> str:
    """The page with this table in it."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table(results)}{END}{rest.split(END)[1]}"


def merged(old: list[dict], new: list[dict]) -> list[dict]:
    """Results in the order of the matrix; what was not tried this time stays, faults that are no more do not."""
    by_title = {one["fault"]: one for one in [*old, *new]}
    return [by_title[fault.title] for fault in faults([]) if fault.title in by_title]


def main() -> int:
    """The exit code: 1 when anything was lost."""
    parser = argparse.ArgumentParser(description="Try every fault, and count.")
    parser.add_argument("--quick", action="store_true", help="few tries of each; nothing is published")
    parser.add_argument("--only", nargs="+", default=[], help="rows: P1 D2")
    parser.add_argument("--module", help="the faults of one module of tests/faults")
    parser.add_argument("--to", type=Path, help="write the results here instead of publishing them")
    parser.add_argument("--jobs", type=int, default=1, help="so many faults at a time")
    options = parser.parse_args()
    cpu.kernels(wait=True)  # once, before anything is forked
    results: list[dict] = []
    for one in tried(faults(options.only, options.module), quick=options.quick, jobs=options.jobs):
        results.append(one)
        print(f"{one['fault']:<60} {one['survived']:>6,} of {one['tried']:,} ({one['seconds']} s)", flush=True)
    if options.to:
        options.to.write_text(json.dumps(results))
    elif not options.quick:
        results = merged(json.loads(RESULTS.read_text()) if RESULTS.exists() else [], results)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(published(results, PAGE.read_text()))
    return int(any(one["lost"] or one["survived"] < one["tried"] for one in results))


if __name__ == "__main__":
    sys.exit(main())
