"""`python -m benchmarks.atlas [recall] [million]`: how exact and how large search and near-duplicates are.

recall: the ten nearest of 1,000 of 100,000 vectors, by cells and by comparing all. million: `moco dedup` and
`moco search` on a million vectors, as commands, with their peak memory (resident set, by the kernel). Vectors are
synthetic: a smooth function of 16 random numbers, around 1,000 centres, plus noise, and some copies. Prints one JSON
object for each part, and updates it in benchmarks/results/atlas.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results" / "atlas.json"
DIM, LATENT, CENTRES, NOISE = 128, 16, 1000, 0.05
COPY_EVERY, COPY_NOISE = 100, 0.005  # one vector in 100 is a copy of an earlier one; its cosine similarity is 0.998
CHUNK = 20_000  # vectors made at a time


def vectors(n: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Blocks of float32, CHUNK x DIM. Each COPY_EVERY-th row of a block is nearly its row before."""
    rng = np.random.default_rng(seed)
    inner, outer = rng.normal(size=(LATENT, 64)) / 4, rng.normal(size=(64, DIM)) / 8
    centres = 2 * rng.normal(size=(CENTRES, LATENT))
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        z = centres[rng.integers(CENTRES, size=count)] + rng.normal(size=(count, LATENT))
        x = np.tanh(z @ inner) @ outer + NOISE * rng.normal(size=(count, DIM))
        copies = np.arange(COPY_EVERY - 1, count, COPY_EVERY)
        length = np.linalg.norm(x[copies - 1], axis=1, keepdims=True)
        x[copies] = x[copies - 1] + COPY_NOISE * length * rng.normal(size=(len(copies), DIM))
        yield x.astype(np.float32)


def write(file: Path, n: int) -> None:
    """A file as of `moco embed`, never whole in memory."""
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (n, DIM)})
        for block in vectors(n):
            out.write(block.tobytes())
    with file.with_name(f"{file.stem}.names.txt").open("w") as names:
        names.writelines(f"{i // 1000:04d}/{i:07d}.jpg\n" for i in range(n))


class Run(NamedTuple):
    """What a command took."""

    seconds: float
    peak_mb: float  # of resident memory; the parent's, this process, is below 200
    output: str


def command(*arguments: object) -> Run:
    """Run `moco` with these arguments. Raises SystemExit if it fails."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1)]
        line = [sys.executable, "-m", "moco", *map(str, arguments)]
        process = os.posix_spawn(sys.executable, line, os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
        if status:
            raise SystemExit(f"{' '.join(line)} failed: {os.waitstatus_to_exitcode(status)}")
        output.seek(0)
        kilobyte = 1024 if sys.platform == "darwin" else 1
        return Run(round(time.monotonic() - started, 1), usage.ru_maxrss / kilobyte / 1024, output.read())


def recall(features: Path | None, n: int = 100_000, queries: int = 1000, k: int = 10) -> dict[str, Any]:
    """The share of the k nearest others that cells find, among synthetic vectors or those of a file."""
    from benchmarks.memory import alone

    return alone(recall_here, features, n, queries, k)


def recall_here(features: Path | None, n: int, queries: int, k: int) -> dict[str, Any]:
    from moco.atlas.collection import normalize_rows
    from moco.atlas.index import Cells, Exact, build_index

    x = normalize_rows(np.concatenate(list(vectors(n))) if features is None else np.load(features))
    some = np.random.default_rng(1).choice(len(x), queries, replace=False)
    before = _resident()
    started = time.monotonic()
    index = build_index(x, exact=False)
    built = time.monotonic() - started
    if not isinstance(index, Cells):
        raise SystemExit("faiss is not installed: pip install '.[atlas]'")
    memory = _resident() - before
    times, found = [], []
    for one in (index, Exact(x)):
        started = time.monotonic()
        found.append(one.nearest(x[some], k + 1)[1])
        times.append((time.monotonic() - started) / queries)
    shares = [
        len({*a} & {*b} - {row}) / k
        for row, a, b in zip(some.tolist(), found[0].tolist(), found[1].tolist(), strict=True)
    ]
    return {
        "vectors": len(x), "dimensions": x.shape[1], "recall_at_10": round(float(np.mean(shares)), 4),
        "queries_with_all_10": round(float(np.mean(np.array(shares) == 1)), 4),
        "memory_of_vectors_mb": round(x.nbytes / 2**20), "memory_of_cells_mb": round(memory),
        "seconds_to_build": round(built, 1), "ms_a_query": round(1000 * times[0], 3),
        "ms_a_query_exact": round(1000 * times[1], 3),
    }  # fmt: skip


def million(n: int = 1_000_000) -> dict[str, Any]:
    """`moco dedup` and `moco search` on n vectors."""
    with tempfile.TemporaryDirectory() as folder:
        file, picture = Path(folder) / "x.npy", Path(folder) / "query.png"
        write(file, n)
        line = [sys.executable, "-c", ENCODER, str(Path(folder) / "encoder"), str(picture)]
        subprocess.run(line, check=True)
        duplicates = command("dedup", file, "--list", Path(folder) / "keep.txt", "--json")
        found = json.loads(duplicates.output)
        dropped = {one["path"] for group in found["groups"] for one in group[1:]}
        planted = {f"{i // 1000:04d}/{i:07d}.jpg" for i in range(n) if i % CHUNK % COPY_EVERY == COPY_EVERY - 1}
        search = command("search", Path(folder) / "encoder", picture, "--data", file, "--json")
    return {
        "vectors": n, "dimensions": DIM, "file_mb": round(n * DIM * 4 / 2**20),
        "dedup_peak_mb": round(duplicates.peak_mb), "dedup_seconds": duplicates.seconds,
        "dedup_method": found["method"], "planted_copies": len(planted),
        "copies_found": round(len(planted & dropped) / len(planted), 4), "others_dropped": len(dropped - planted),
        "search_peak_mb": round(search.peak_mb), "search_seconds": search.seconds,
    }  # fmt: skip


# in a process of its own, as torch would make this one large
ENCODER = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from moco.encoders import build_headless
from moco.recipe import DataSpec, EncoderSpec, Recipe
from moco.weights.encoder_folder import save_encoder
spec, data = EncoderSpec(name="resnet10", width=0.25), DataSpec(size=32)
save_encoder(Path(sys.argv[1]), build_headless(spec), recipe=Recipe(name="r", encoder=spec, data=data), facts={})
Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(sys.argv[2])
"""


def _resident() -> float:
    """[MB]"""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.atlas", description=__doc__)
    parser.add_argument("part", nargs="?", choices=["recall", "million"], help="default: both")
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help="recall among these, a file of moco embed, instead"
    )
    asked = parser.parse_args()
    parts = {"recall": lambda: recall(asked.features), "million": million}
    for name in [asked.part] if asked.part else parts:
        result = parts[name]()
        print(json.dumps({name: result}), flush=True)
        if asked.features is None:
            kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            RESULTS.write_text(json.dumps(kept | {name: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
