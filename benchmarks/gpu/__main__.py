"""Run the parts in a few processes, collect what they measured, and print a table.

First, side by side: the tests marked `gpu`, the photographs, and compilation into torch's cache on the disk. Then,
alone on the card, what is timed. Each process writes its results after every part, so a failure loses one part.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import operations, steps, whole_runs
from benchmarks.gpu.results import read_tests, row, to_markdown
from benchmarks.gpu.timing import Bench, Measurement, Part, shown
from moco.files import write_json, write_text

PARTS: dict[str, Part] = {part.name: part for part in [*operations.PARTS, *steps.PARTS, *whole_runs.PARTS]}
TIMED: Sequence[tuple[float, Sequence[str]]] = (  # seconds at most, and the parts; one process after the other
    (110, ("ceilings", "resnet50", "resnet50-compiled")),
    (60, ("loss-65536", "loss-1048576", "momentum-update", "optimizers", "knn")),
    (110, ("runs", "input", "embedding")),
    (100, ("vit-small", "vit-base", "colours")),
)
COMPILED: Sequence[Sequence[str]] = (("resnet50-compiled",), ("vit-small", "colours"))  # side by side
FIRST_PHASE = 140  # [s] at most for tests and compilation
GRACE = 20  # [s] beyond the limit, for the part at work


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--dry", action="store_true", help="at toy size on a CPU")
    parser.add_argument("--seconds", type=float, default=440, help="no part begins later than this")
    parser.add_argument("--only", nargs="+", metavar="PART", choices=[*PARTS, "tests"], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--in-process", nargs="+", metavar="PART", help=argparse.SUPPRESS)
    parser.add_argument("--only-compile", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        torch.device("cpu" if args.dry else "cuda"), toy=args.dry, rounds=1 if args.dry else 5,
        only_compile=args.only_compile,
    )  # fmt: skip
    if not args.dry and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use here: add --dry for the same code at toy size on a CPU")
    end = time.time() + args.seconds
    if args.in_process:
        run_parts(args.in_process, bench, args.out / file_of(args.in_process, bench), end)
    else:
        run_all(args.out, args.only or [*PARTS, "tests"], dry=args.dry, end=end)


def file_of(names: Sequence[str], bench: Bench) -> str:
    return f"{'compiled' if bench.only_compile else 'timed'}-{names[0]}.json"


def run_parts(names: Sequence[str], bench: Bench, file: Path, end: float) -> None:
    """Run parts one after the other. Each measurement is printed, and in `file`, as soon as it is made."""
    found: list[Measurement] = []
    for name in names:
        start = time.time()
        none_left = [Measurement(name, "", error="not run: no time was left")]
        for one in none_left if start > end else guarded(PARTS[name], bench):
            found.append(one)
            print(row(one.as_dict()), flush=True)
            write_json(file, [one.as_dict() for one in found])
        print(f"{name}: {time.time() - start:.0f} s", flush=True)
        if bench.device.type == "cuda":
            torch.compiler.reset()
            torch.cuda.empty_cache()


def guarded(part: Part, bench: Bench) -> Iterator[Measurement]:
    """What the part measures; its exception is a measurement with an error."""
    try:
        yield from part.run(bench)
    except Exception as error:
        traceback.print_exc()
        yield Measurement(part.name, "", error=shown(error))


def run_all(out: Path, names: Sequence[str], *, dry: bool, end: float) -> None:
    """All chosen parts, each in a process with others of its kind."""
    begun = time.time()
    side_by_side: dict[str, subprocess.Popen[bytes]] = {}
    if not dry:
        for group in COMPILED:
            if chosen := [name for name in group if name in names]:
                side_by_side[f"compile {chosen[0]}"] = start(chosen, out, end, "--only-compile")
        if "tests" in names:
            side_by_side["tests"] = start_tests(out)
    if set(names) & {"input", "runs", "embedding"}:
        whole_runs.ready_photos(Bench(torch.device("cpu"), toy=dry))
    for name, process in side_by_side.items():
        wait(name, process, until=begun + FIRST_PHASE)
    print(f"{time.time() - begun:.0f} s until the first timed part", flush=True)
    for seconds, group in TIMED:
        if chosen := [name for name in group if name in names]:
            process = start(chosen, out, end, *(["--dry"] if dry else []))
            wait(", ".join(chosen), process, until=min(time.time() + seconds, end + GRACE))
        write_results(collect(out, seconds=time.time() - begun), out)  # after each process: the machine may be taken
    print((out / "gpu.md").read_text())
    for file in (*out.glob("timed-*.json"), *out.glob("compiled-*.json")):
        file.unlink()
    shutil.rmtree(out / "cache", ignore_errors=True)


def write_results(results: dict[str, Any], out: Path) -> None:
    write_json(out / "gpu.json", results)
    write_text(out / "gpu.md", to_markdown(results))


def start(names: Sequence[str], out: Path, end: float, *options: str) -> "subprocess.Popen[bytes]":
    """A process that runs these parts."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), "--seconds", f"{end - time.time():.0f}"]
    environment = os.environ | {
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1", "TORCHINDUCTOR_AUTOGRAD_CACHE": "1", "TORCHINDUCTOR_COMPILE_THREADS": "6",
        "TORCHINDUCTOR_CACHE_DIR": str(out.resolve() / "cache"), "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }  # fmt: skip
    return subprocess.Popen([*command, *options, "--in-process", *names], env=environment)


def start_tests(out: Path) -> "subprocess.Popen[bytes]":
    """The tests marked `gpu`, several at a time."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider", "-n", "6"]
    log = (out / "tests.log").open("wb")
    xml = f"--junitxml={out / 'tests.xml'}"
    shown = ["-v", "--tb=short", "--dist=worksteal", "-p", "no:warnings"]
    return subprocess.Popen([*command, xml, "-o", "junit_family=xunit1", *shown], stdout=log, stderr=subprocess.STDOUT)


def wait(name: str, process: "subprocess.Popen[bytes]", *, until: float) -> None:
    try:
        code = process.wait(max(1.0, until - time.time()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then reports the tests that have ended
        code = "stopped: out of time"
        try:
            process.wait(GRACE / 2)
        except subprocess.TimeoutExpired:
            process.kill()
    if code:
        print(f"{name}: ended with {code}", flush=True)


def collect(out: Path, *, seconds: float) -> dict[str, Any]:
    """What all processes measured, the tests, and where."""
    measured = [one for file in sorted(out.glob("timed-*.json")) for one in json.loads(file.read_text())]
    failed = [one for file in sorted(out.glob("compiled-*.json")) for one in json.loads(file.read_text())]
    return {
        "machine": machine(), "seconds": round(seconds), "tests": read_tests(out / "tests.xml"), "measured": measured,
        "not_compiled": failed,
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """Card, processor and versions."""
    import torchvision

    card = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "card": card.name if card else "none", "memory_gb": round(card.total_memory / 1e9, 1) if card else None,
        "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__,
        "torchvision": torchvision.__version__, "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if card else None,
    }  # fmt: skip


if __name__ == "__main__":
    main()
