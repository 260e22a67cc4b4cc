"""`python -m benchmarks.run`: our time against the usual implementation's and against peers', on one machine.

Prints a table, and updates the measured rows in the file of this kind of processor in benchmarks/results/cpu. Other
rows there stay. Each row has the machine that it was measured on.
"""

import argparse
import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import detector, evaluation, inputs, method, peers_input, ranks, startup, step, whole
from benchmarks.measure import HEADER, Result, Row

RESULTS = Path(__file__).parent / "results" / "cpu"  # a file for each kind of processor
ROUNDS, QUICK_ROUNDS = 7, 3
ROWS: Sequence[Row] = [
    *inputs.ROWS,
    *peers_input.ROWS,
    *step.ROWS,
    *method.ROWS,
    *ranks.ROWS,
    *evaluation.ROWS,
    *detector.ROWS,
    *whole.ROWS,
    *startup.ROWS,
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, without what takes long: a few minutes")
    parser.add_argument("--large", action="store_true", help="peers too that are hundreds of megabytes to download")
    parser.add_argument(
        "--only", metavar="PREFIX", nargs="+", help="only rows whose names begin so, such as step loss/"
    )
    args = parser.parse_args()
    chosen = select(ROWS, quick=args.quick, large=args.large, only=args.only)
    if not chosen:
        parser.error(f"--only expects beginnings of {', '.join(row.name for row in ROWS)}, got {' '.join(args.only)}")
    torch.set_num_threads(1)
    where = machine()
    print(f"{where}, one thread, CPU time, {QUICK_ROUNDS if args.quick else ROUNDS} rounds\n\n{HEADER}", flush=True)
    for row in chosen:
        for result in row.run(QUICK_ROUNDS if args.quick else ROUNDS):
            print(result.row(), flush=True)
            keep(RESULTS / f"{file_name(processor())}.json", [result], machine=where)


def select(
    rows: Sequence[Row], *, quick: bool = False, large: bool = False, only: Sequence[str] | None = None
) -> list[Row]:
    """The rows to run. With `only`: those whose names begin so, slow ones included.

    A name in `only` may also be that of a single result of a row.
    """
    if not only:
        return [row for row in rows if not (quick and row.slow) and (large or not row.large)]
    begin_so = [
        row for row in rows if row.name.startswith(tuple(only)) and (large or not row.large or row.name in only)
    ]
    return begin_so or [row for row in rows if any(one.startswith(f"{row.name}/") for one in only)]


def keep(file: Path, results: Iterable[Result], *, machine: str) -> None:
    """Replace the results of the same names in `file`. A peer that is not available has no result."""
    kept: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    by_name = {one["name"]: one for one in kept}
    by_name |= {one.name: one.as_dict() | {"machine": machine} for one in results if one.ratio is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(list(by_name.values()), indent=1) + "\n")


def file_name(processor: str) -> str:
    """A name for the kind of processor: "Intel(R) Xeon(R) Processor" gives intel-xeon-processor."""
    plain = re.sub(r"\((?:r|tm|c)\)|\bcpu\b|@.*", " ", processor.lower())
    return "-".join(re.findall(r"[a-z0-9]+", plain))


def processor() -> str:
    """As the kernel names it."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return models[0].split(":", 1)[1].strip() if models else platform.processor() or platform.machine()


def machine() -> str:
    """Processor, cores and versions: the ratios depend on them."""
    return f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
