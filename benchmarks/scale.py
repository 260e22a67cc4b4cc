"""Start-up time and memory at a million images, and of the order and index of a billion: `python -m benchmarks.scale`.

    list, folder      1,000,000 names of 200 small JPEG files (hard links): `moco pretrain` to the end of its first step
    shards            10 shards with 100,000 small images by `moco pack`, each under ten names: the same
    order             draws of mini-batches from 1e6, 1e8 and 1e9 images, without images
    index             an index of 1e9 images in 100,000 shards, all zeros (a sparse file of 44 GB), opened

Memory is what processes have beside files (Pss_Anon and Pss_Shmem of all of them together, at its peak), less that of a
process after the imports. Mapped pages of an index are not counted: the system drops them when it needs memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import clocks
from benchmarks.startup import ROOT

FILES_IN_FOLDER, DIFFERENT, SIDE = 1000, 200, 96
OUR_IMPORTS = ["-c", "import moco.train.pretrain"]
ORDERS = (10**6, 10**8, 10**9)
SHARDS, IN_A_SHARD = 100_000, 10_000


def memory_of(process: int) -> float:
    """[MB] of a process beside files; memory that several have is divided among them."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem"))) / 1024


def run_python(arguments: list[str], *, every: float = 0.02) -> tuple[float, float, float]:
    """(wall time [s], CPU time [s], peak memory [MB]) of a command and all its processes."""
    before, began, peak = os.times(), time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(memory_of, [process.pid, *clocks.children(process.pid)])))
        time.sleep(every)
    wall, after = time.perf_counter() - began, os.times()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, peak


def make_names(root: Path, count: int) -> tuple[Path, Path]:
    """A folder with `count` names of a few files, and a list of them."""
    from benchmarks.pictures import jpegs

    files = sorted(jpegs(root / "files", DIFFERENT, sizes=((SIDE, SIDE),)).glob("*/*.jpg"))
    lines = []
    for start in range(0, count, FILES_IN_FOLDER):
        inside = f"images/class{start // 10**4:03d}/part{start // FILES_IN_FOLDER:04d}"
        (root / inside).mkdir(parents=True)
        for number in range(start, min(start + FILES_IN_FOLDER, count)):
            lines.append(f"{inside}/{number:09d}.jpg")
            os.link(files[number % len(files)], root / lines[-1])
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    return root / "images", root / "list.txt"


def make_shards(root: Path, listed: Path, times: int = 10) -> Path:
    """Shards with a tenth of the images, and their hard links."""
    some = root / "some.txt"
    with listed.open() as lines:
        some.write_text("".join(line for number, line in enumerate(lines) if number % times == 0))
    subprocess.run(
        [sys.executable, "-m", "moco", "pack", str(some), "--to", str(root / "packed"), "--workers", "2"],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (root / "shards").mkdir()
    for place, tar in enumerate(sorted((root / "packed").glob("*.tar")) * times):
        os.link(tar, root / "shards" / f"{place:06d}.tar")
    return root / "shards"


def starts(root: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """`moco pretrain` to the end of its first step, on each kind of DATA in turn."""
    folder, listed = make_names(root, count)
    few = root / "few.txt"
    few.write_text("".join(f"{line}\n" for line in listed.read_text().splitlines()[:1000]))
    shards = make_shards(root, listed)
    began = time.perf_counter()
    index = [sys.executable, "-c", f"from moco.data.sources.open import open_images; open_images({str(shards)!r})"]
    subprocess.run(index, cwd=ROOT, check=True)
    print(f"index of {count:,} images in shards: {time.perf_counter() - began:.1f} s", flush=True)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        _, _, imports = run_python(OUR_IMPORTS)
        for name, data in {"1,000": few, "list": listed, "folder": folder, "shards": shards}.items():
            out = root / "out"
            shutil.rmtree(out, ignore_errors=True)
            for how in ("new", "resumed"):
                wall, cpu, peak = run_python(["-m", "benchmarks.first_step", str(data), str(out)])
                print(f"{name}, {how}: {wall:.1f} s, {cpu:.1f} CPU s, {peak - imports:.0f} MB", flush=True)
                for what, value in (("wall", wall), ("cpu", cpu), ("memory", peak - imports)):
                    found.setdefault(f"{name}/{how}/{what}", []).append(value)
    return found


def in_a_process(code: str, *arguments: object) -> dict[str, float]:
    """What `code` prints as JSON, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


MEASURED = """
import json, os, sys, time
import numpy as np
from benchmarks.scale import memory_of
from moco.data.loader.sampler import StepSampler
from moco.data.sources.open import open_images
base = memory_of(os.getpid())
def answer(began, first, each):
    memory = memory_of(os.getpid()) - base
    print(json.dumps({"start": first - began, "each": each, "memory": memory}))
"""
ORDER = """
n, by_shards = int(sys.argv[1]), sys.argv[2] == "shards"
began = time.perf_counter()
shards = np.full(-(-n // 10_000), 10_000) if by_shards else None
sampler = StepSampler(n, 256, seed=0, steps=range(10**9), rank=3, world_size=8, shards=shards)
sampler.draw(0)
first = time.perf_counter()
for step in range(1000):
    sampler.draw(step * 997)
answer(began, first, (time.perf_counter() - first) / 1000)
"""
INDEX = """
began = time.perf_counter()
images = open_images(sys.argv[1])
images.names[len(images) - 1], images.sizes[12345], images.labels
first = time.perf_counter()
rng = np.random.default_rng(0)
for index in rng.integers(0, len(images), 1000).tolist():
    images.index.records[index], images.names[index]
answer(began, first, (time.perf_counter() - first) / 1000)
"""


def orders() -> dict[str, dict[str, float]]:
    """Time to the first mini-batch of one of 8 ranks, time of a later one, and memory, for sets that do not exist."""
    return {
        f"{kind}/{count:.0e}": in_a_process(MEASURED + ORDER, count, kind)
        for kind in ("uniform", "shards")
        for count in ORDERS
    }


def billion(root: Path) -> dict[str, float]:
    """Open an index of a billion images. Its numbers are all zero, in a file that takes no room."""
    from moco.data.shards.index import INDEX_FOLDER, RECORD, VERSION

    place = root / INDEX_FOLDER
    place.mkdir(parents=True)
    facts = []
    for number in range(SHARDS):
        shard = root / f"{number:06d}.tar"
        shard.touch()
        facts.append([shard.name, 0, shard.stat().st_mtime_ns])
    np.lib.format.open_memmap(place / "samples.npy", "w+", RECORD, (SHARDS * IN_A_SHARD,)).flush()
    records = np.load(place / "samples.npy", mmap_mode="r+")
    records["name"][-1] = 1
    (place / "names.bin").write_bytes(b"x")
    about = {
        "version": VERSION, "shards": facts, "images": SHARDS * IN_A_SHARD, "classes": [], "damage": [], "damaged": 0,
        "counts": [IN_A_SHARD] * SHARDS, "labelled": False,
    }  # fmt: skip
    (place / "shards.json").write_text(json.dumps(about))
    return in_a_process(MEASURED + INDEX, root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["starts", "orders", "index"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "scale.json")
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        parts: dict[str, Callable[[], object]] = {
            "orders": orders,
            "index": lambda: billion(root / "index"),
            "starts": lambda: medians(starts(root / "starts", args.images, args.rounds)),
        }
        for name, measure in parts.items():
            if args.only in (None, name):
                found[name] = measure()
                print(name, json.dumps(found[name], indent=1), flush=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")


def medians(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {
        name: {"median": round(statistics.median(each), 1), "low": round(min(each), 1), "high": round(max(each), 1)}
        for name, each in found.items()
    }


if __name__ == "__main__":
    main()
