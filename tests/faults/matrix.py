"""The fault matrix: what can go wrong, how often it was tried, and how often the run survived.

    make faults, or python -m tests.faults.matrix [--quick] [--only P1 D2 ...] [--jobs N]

Modules of this folder that try faults have a list `FAULTS`. This program runs all of them with their full counts, each
in its own process, and writes benchmarks/results/faults.json and the table in docs/reliability.md.
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
    """The results of some tries."""

    tried: int = 0
    survived: int = 0  # ended as the matrix expects
    lost: int = 0  # tries in which something was lost, accepted, or silently wrong

    def __iadd__(self, good: bool) -> "Tally":
        """One more try."""
        self.tried, self.survived, self.lost = self.tried + 1, self.survived + good, self.lost + (not good)
        return self


@dataclass(frozen=True)
class Fault:
    """One row of the matrix."""

    row: str  # "P1"
    name: str  # such as "SIGKILL anywhere in a run"
    expected: str  # the expected outcome
    guard: str  # the protection, and the test that fails without it
    count: int  # tries of a full run
    quick: int  # tries in the test suite; 0: not tried there
    run: Callable[[int, Path], Tally]  # number of tries, scratch folder -> results

    @property
    def title(self) -> str:
        return f"{self.row} {self.name}"


def modules() -> list[str]:
    """Names of the modules that try faults."""
    files = sorted(HERE.glob("*.py"))
    return [file.stem for file in files if not file.name.startswith("test_") and "\nFAULTS" in file.read_text()]


def faults(only: list[str], module: str | None = None) -> list[Fault]:
    """All faults, or those of some rows or of one module, in the order of the matrix."""
    names = modules() if module is None else [module]
    found = [fault for name in names for fault in importlib.import_module(f"tests.faults.{name}").FAULTS]
    return sorted((fault for fault in found if not only or fault.row in only), key=lambda fault: _place(fault.row))


def _place(row: str) -> tuple[int, int, str]:
    return "PDINS".find(row[:1]), int("".join(filter(str.isdigit, row)) or 0), row


class Try:
    """Run the tries of a fault in a fork with its own scratch folder."""

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
    """Run the faults, `jobs` at a time, and yield the result of each when it ends."""
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
    """The matrix with its results as a Markdown table."""
    about = {fault.title: fault for fault in faults([])}
    lines = ["| | fault | expected | guard, and a test without it | tried | survived | lost |"]
    lines.append("|---|---|---|---|---|---|---|")
    for one in results:
        if fault := about.get(one["fault"]):
            counts = f"{one['tried']:,} | {one['survived']:,} | {one['lost']:,}"
            lines.append(f"| {fault.row} | {fault.name} | {fault.expected} | {fault.guard} | {counts} |")
    return "\n".join(lines) + "\n"


def published(results: list[dict], page: str) -> str:
    """The page with the table replaced."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table(results)}{END}{rest.split(END)[1]}"


def merged(old: list[dict], new: list[dict]) -> list[dict]:
    """Old and new results in the order of the matrix, without faults that no longer exist."""
    by_title = {one["fault"]: one for one in [*old, *new]}
    return [by_title[fault.title] for fault in faults([]) if fault.title in by_title]


def serve() -> None:
    """Try the faults of a module for each line of standard input, `module<TAB>file for the results`, a few tries each.

    So the test suite imports torch once, and not for each module.
    """
    lines = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # not for the processes that are started
    for line in lines:
        module, to = line.rstrip("\n").split("\t")
        results = list(tried([fault for fault in faults([], module) if fault.quick], quick=True, jobs=1))
        Path(f"{to}.part").write_text(json.dumps(results))
        Path(f"{to}.part").replace(to)


def main() -> int:
    """Returns the exit code: 1 if anything was lost."""
    parser = argparse.ArgumentParser(description="Try every fault, and count.")
    parser.add_argument("--quick", action="store_true", help="few tries of each; nothing is published")
    parser.add_argument("--only", nargs="+", default=[], help="rows: P1 D2")
    parser.add_argument("--module", help="the faults of one module of tests/faults")
    parser.add_argument("--to", type=Path, help="write the results here instead of publishing them")
    parser.add_argument("--jobs", type=int, default=1, help="number of faults that run at a time")
    parser.add_argument("--serve", action="store_true", help="for the test suite: see the function `serve`")
    options = parser.parse_args()
    cpu.kernels(wait=True)  # once, before anything is forked
    if options.serve:
        serve()
        return 0
    results: list[dict] = []
    chosen = [fault for fault in faults(options.only, options.module) if fault.quick or not options.quick]
    for one in tried(chosen, quick=options.quick, jobs=options.jobs):
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
