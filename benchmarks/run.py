"""`python -m benchmarks.run [--quick]`: every benchmark, as a table on stdout and in benchmarks/results/latest.json."""

import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import method, views
from benchmarks.measure import Result

RESULTS = Path(__file__).parent / "results" / "latest.json"


def every(*, quick: bool) -> Iterator[Result]:
    rounds = 3 if quick else 7
    yield from method.loss(rounds, sizes=(4096, 65536) if quick else (4096, 65536, 1 << 20))
    yield method.momentum_update(rounds)
    yield from views.small(rounds)
    if not quick:
        yield from views.photos(rounds)


def main() -> None:
    torch.set_num_threads(1)
    quick = "--quick" in sys.argv[1:]
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread, CPU time\n")
    print("| what | ours / reference (spread) | speed-up | ours [ms] | reference [ms] | reference |")
    print("|---|---|---|---|---|---|")
    results = []
    for result in every(quick=quick):
        print(result.row(), flush=True)
        results.append(result.as_dict())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
