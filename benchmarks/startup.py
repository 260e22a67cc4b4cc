"""Start-up time of the command's help and of a run on many files, and memory of the input."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks import memory
from benchmarks.inputs import batches, data_of, folder_of
from benchmarks.measure import Result, Row, Spent, Work, cpu_of, interleaved, result, spent, wall_of
from benchmarks.pictures import jpegs
from benchmarks.reference.transforms import Views

ROOT = Path(__file__).parent.parent
FILES, CLASSES, SIDE = 100_000, 100, 96  # 96 x 96 pixels: too large for the cache of images
DIFFERENT = 200  # images; the others are copies
STEPS, IMAGES = 4, 64  # read to measure peak memory
FEW, MANY = 2, 8  # threads


def python(*arguments: str) -> Work:
    """A complete run of this interpreter."""

    def work() -> None:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")

    return work


def help_text(rounds: int) -> Iterator[Result]:
    works = {
        "ours": python("-m", "moco", "--help"),
        "typer": python("-c", "import typer"),
        "lower_bound": python("-c", ""),
    }
    times = interleaved(works, rounds=rounds, repeat=3)
    yield result(
        "start/help", times["ours"], times["typer"], lower_bound=times["lower_bound"],
        against="python -c 'import typer'; lower bound: python alone",
    )  # fmt: skip


def first_step(rounds: int, files: int = FILES) -> Iterator[Result]:
    """From the start of the process to the end of the first step. Cold: a new run. Warm: files were listed before."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, cold, warm = many(Path(scratch, "images"), files), Path(scratch, "cold"), Path(scratch, "warm")

        def anew() -> None:
            shutil.rmtree(cold, ignore_errors=True)
            python("-m", "benchmarks.first_step", str(folder), str(cold))()

        works = {
            "cold": anew, "warm": python("-m", "benchmarks.first_step", str(folder), str(warm)),
            "usual": python("-m", "benchmarks.usual_first_batch", str(folder)),
            "lower_bound": python("-c", "import torch"),
        }  # fmt: skip
        times = spent(works, rounds=rounds, repeat=1)
    for name in ("cold", "warm"):
        yield from _both(f"start/{files}-files/{name}", times[name], times["usual"], times["lower_bound"])


def _both(name: str, ours: list[Spent], usual: list[Spent], lower_bound: list[Spent]) -> Iterator[Result]:
    against = "torchvision imported, ImageFolder, a first batch without a step"
    yield result(
        name, cpu_of(ours), cpu_of(usual), lower_bound=cpu_of(lower_bound),
        against=f"{against}; lower bound: import torch",
    )  # fmt: skip
    yield result(
        f"{name}/wall", wall_of(ours), wall_of(usual), lower_bound=wall_of(lower_bound),
        against=f"{against}, by the clock; lower bound: import torch",
    )  # fmt: skip


def many(folder: Path, files: int) -> Path:
    """Fill `folder` with `files` small JPEGs in a hundred classes."""
    with tempfile.TemporaryDirectory() as scratch:
        some = sorted(jpegs(Path(scratch), min(DIFFERENT, files), sizes=((SIDE, SIDE),)).glob("*/*.jpg"))
        contents = [path.read_bytes() for path in some]
    for label in range(CLASSES):
        (folder / f"class{label:03d}").mkdir(parents=True)
    for index in range(files):
        (folder / f"class{index % CLASSES:03d}" / f"{index:06d}.jpg").write_bytes(contents[index % len(contents)])
    return folder


def reading(folder: Path, workers: int) -> Work:
    """STEPS mini-batches of MoCo v2's views, made by `workers` threads."""
    loader = batches(folder_of(folder)[0], data_of("v2"), steps=range(STEPS), workers=workers, as_bytes=False)
    return lambda: [None for _ in loader]


def worker_memory(folder: Path) -> float | None:
    """Most private memory [MB] of a worker of a DataLoader."""
    views = Views(folder_of(folder)[1], data_of("v2"), repeats=STEPS)
    loader = torch.utils.data.DataLoader(views, batch_size=IMAGES, num_workers=2)
    seen = [memory.private_of_children() for _ in loader]
    return max((one for one in seen if one is not None), default=None)


def input_memory(rounds: int, images: int = IMAGES) -> Iterator[Result]:
    """Memory of two threads with all buffers, and of one more thread, against workers of a DataLoader."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = jpegs(Path(scratch), images)
        few, many_more = (memory.peak(partial(reading, folder, workers)) for workers in (FEW, MANY))
        usual = memory.alone(worker_memory, folder)
    if few is None or many_more is None or usual is None:
        return
    each = max(0.0, many_more.beyond - few.beyond) / (MANY - FEW)
    yield _megabytes("memory/input/2-threads", few.beyond, FEW * usual, "the workers of a DataLoader")
    yield _megabytes("memory/input/a-worker", each, usual, "a worker of a DataLoader")


def _megabytes(name: str, ours: float, usual: float, what: str) -> Result:
    ratio = round(ours / usual, 4)
    return Result(
        name, f"{what}, what they have for themselves; megabytes, not time", ratio, ratio, ratio, rounds=1,
        memory_mb=round(ours, 1), reference_memory_mb=round(usual, 1),
    )  # fmt: skip


ROWS = [
    Row("start/help", help_text),
    Row(f"start/{FILES}-files", first_step, slow=True),
    Row("memory/input", input_memory),
]
