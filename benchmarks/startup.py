"""How long it takes to begin: the command's help, the first step on a folder of many files; and memory of the input."""

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
FILES, CLASSES, SIDE = 100_000, 100, 96  # of 96 x 96 pixels: too large to be kept in memory
DIFFERENT = 200  # pictures; the others are copies
STEPS, IMAGES = 4, 64  # that are read for the peak of memory
FEW, MANY = 2, 8  # threads


def python(*arguments: str) -> Work:
    """A run of this interpreter, from its start to its end."""

    def work() -> None:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")

    return work


def help_text(rounds: int) -> Iterator[Result]:
    works = {"ours": python("-m", "moco", "--help"), "typer": python("-c", "import typer"), "floor": python("-c", "")}
    times = interleaved(works, rounds=rounds, repeat=3)
    yield result(
        "start/help", times["ours"], times["typer"], floor=times["floor"],
        against="python -c 'import typer'; lower bound: python alone",
    )  # fmt: skip


def first_step(rounds: int, files: int = FILES) -> Iterator[Result]:
    """From the start of the process, imports and all. Cold: a new run. Warm: one that has seen the folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, cold, warm = many(Path(scratch, "images"), files), Path(scratch, "cold"), Path(scratch, "warm")

        def anew() -> None:
            shutil.rmtree(cold, ignore_errors=True)
            python("-m", "benchmarks.first_step", str(folder), str(cold))()

        works = {
            "cold": anew, "warm": python("-m", "benchmarks.first_step", str(folder), str(warm)),
            "usual": python("-m", "benchmarks.usual_first_batch", str(folder)),
            "floor": python("-c", "import torch"),
        }  # fmt: skip
        times = spent(works, rounds=rounds, repeat=1)
    for name in ("cold", "warm"):
        yield from _both(f"start/{files}-files/{name}", times[name], times["usual"], times["floor"])


def _both(name: str, ours: list[Spent], usual: list[Spent], floor: list[Spent]) -> Iterator[Result]:
    against = "torchvision imported, ImageFolder, a first batch without a step"
    yield result(
        name, cpu_of(ours), cpu_of(usual), floor=cpu_of(floor), against=f"{against}; lower bound: import torch"
    )  # fmt: skip
    yield result(
        f"{name}/wall", wall_of(ours), wall_of(usual), floor=wall_of(floor),
        against=f"{against}, by the clock; lower bound: import torch",
    )  # fmt: skip


def many(folder: Path, files: int) -> Path:
    """`folder` with so many small JPEGs in a hundred classes."""
    with tempfile.TemporaryDirectory() as scratch:
        some = sorted(jpegs(Path(scratch), min(DIFFERENT, files), sizes=((SIDE, SIDE),)).glob("*/*.jpg"))
        contents = [path.read_bytes() for path in some]
    for label in range(CLASSES):
        (folder / f"class{label:03d}").mkdir(parents=True)
    for index in range(files):
        (folder / f"class{index % CLASSES:03d}" / f"{index:06d}.jpg").write_bytes(contents[index % len(contents)])
    return folder


def reading(folder: Path, workers: int) -> Work:
    """Some mini-batches of MoCo v2's views by so many threads."""
    loader = batches(folder_of(folder)[0], data_of("v2"), steps=range(STEPS), workers=workers, handed_over=False)
    return lambda: [None for _ in loader]


def of_a_usual_worker(folder: Path) -> float | None:
    """[MB] of its own that a worker of a DataLoader has, at most."""
    views = Views(folder_of(folder)[1], data_of("v2"), repeats=STEPS)
    loader = torch.utils.data.DataLoader(views, batch_size=IMAGES, num_workers=2)
    seen = [memory.private_of_children() for _ in loader]
    return max((one for one in seen if one is not None), default=None)


def of_input(rounds: int, images: int = IMAGES) -> Iterator[Result]:
    """What two threads take with all buffers, what each thread more adds to that, and what a usual worker has."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = jpegs(Path(scratch), images)
        few, many_more = (memory.peak(partial(reading, folder, workers)) for workers in (FEW, MANY))
        usual = memory.alone(of_a_usual_worker, folder)
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
    Row("memory/input", of_input),
]
