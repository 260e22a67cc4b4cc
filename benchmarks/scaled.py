"""Scaled against exact decoding (`data.decode`): images a second, and how much the views differ.

    python -m benchmarks.scaled                         # photographs that are made, at several sizes
    python -m benchmarks.scaled FOLDER --name NAME      # JPEG files of yours

Both are measured in turn, in one thread, on the views of MoCo v2: medians of the rounds. The photographs that are made
are enlarged ones of less than a megapixel, with noise for the detail that they lack, and half a byte a pixel
(benchmarks/pictures.py). The rows go into benchmarks/results/scaled.json, by name.
"""

import argparse
import json
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import ours
from benchmarks.measure import cpu_of, spent, wall_of
from benchmarks.pictures import jpegs
from moco import recipes
from moco.data.augment import cpu
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.buffers import Slot
from moco.data.loader.sampler import Draw
from moco.data.loader.view_maker import Task, ViewMaker
from moco.data.sources.folder import find_images
from moco.data.sources.images import Images
from moco.recipe import DataSpec

RESULTS = Path(__file__).parent / "results" / "scaled.json"
SIDES = (448, 672, 896, 1344, 2016, 3000)  # [pixels] of the shorter side of photographs that are made
LUMA = np.array([0.299, 0.587, 0.114])


def crops_of(images: Images, data: DataSpec, epoch: int) -> np.ndarray:
    """The crops of both views of all images, without changes of colour: 2 x n x S x S x 3 bytes."""
    count = len(images)
    maker = ViewMaker(images, data, 0, Quarantine(None, 0, count), coloured=False)
    slot = Slot.empty(count, data, torch.device("cpu"))
    maker.make(Task(maker.draw(Draw(epoch, np.arange(count))), slice(0, count), slot), Event())
    return np.stack(slot.crops)


def divisors_of(images: Images, data: DataSpec, epoch: int) -> list[int]:
    """By how much each image is decoded smaller."""
    count = len(images)
    views = ViewMaker(images, data, 0, Quarantine(None, 0, count), coloured=False).draw(Draw(epoch, np.arange(count)))
    sizes = [images.read(index).shape[:2] for index in range(count)]
    least = [data.size] * len(views.views)
    return [cpu.divisor_for(*size, drawn=views.views, row=row, sizes=least) for row, size in enumerate(sizes)]


def energy(views: np.ndarray) -> np.ndarray:
    """The mean square of the luma's differences between neighbours, of each view."""
    luma = views @ LUMA
    return (np.diff(luma, axis=-1) ** 2).mean((-1, -2)) + (np.diff(luma, axis=-2) ** 2).mean((-1, -2))


def fidelity(images: Images, exact: DataSpec, scaled: DataSpec, epochs: int) -> dict[str, Any]:
    """PSNR [dB] of the crops by scaled decoding and their gradient energy, beside those by exact decoding."""
    psnr, ratio, divisors = [], [], Counter[int]()
    for epoch in range(epochs):
        before, after = (crops_of(images, data, epoch).astype(np.float64) for data in (exact, scaled))
        error = ((before - after) ** 2).mean((-1, -2, -3))
        psnr += (10 * np.log10(255**2 / error[error > 0])).tolist()
        ratio += (energy(after) / energy(before)).ravel().tolist()
        divisors.update(divisors_of(images, scaled, epoch))
    return {
        "views": len(ratio), "divisors": {str(each): divisors[each] for each in sorted(divisors)},
        "psnr_db": _median_and_5th(psnr), "gradient_energy": _median_and_5th(ratio),
    }  # fmt: skip


def _median_and_5th(values: list[float]) -> list[float]:
    return [round(float(np.percentile(values, share)), 3) for share in (50, 5)] if values else []


def measure(images: Images, size: int, rounds: int, epochs: int) -> dict[str, Any]:
    """Times and fidelity of one set of images."""
    exact = recipes.named("moco_v2_r50").data.model_copy(update={"size": size})
    scaled = exact.model_copy(update={"decode": "scaled"})
    times = spent({name: ours(images, data) for name, data in (("exact", exact), ("scaled", scaled))}, rounds=rounds)
    ratios = [before / after for before, after in zip(cpu_of(times["exact"]), cpu_of(times["scaled"]), strict=True)]
    height, width = images.read(0).shape[:2]
    rates = {name: round(len(images) / statistics.median(cpu_of(each)), 2) for name, each in times.items()}
    walls = {name: round(len(images) / statistics.median(wall_of(each)), 2) for name, each in times.items()}
    return {
        "images": len(images), "pixels": [width, height], "bytes_per_pixel": _bytes_per_pixel(images), "view": size,
        "images_per_cpu_second": rates, "images_per_second": walls, "speed_up": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)], **fidelity(images, exact, scaled, epochs),
    }  # fmt: skip


def _bytes_per_pixel(images: Images) -> float:
    pixels = sum(int(np.prod(images.read(index).shape[:2])) for index in range(len(images)))
    return round(float(images.sizes.sum()) / pixels, 3)


def keep(name: str, row: dict[str, Any]) -> None:
    """Write the row into RESULTS, and print it."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(rows | {name: row}, indent=1) + "\n")
    print(name, json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--name", default="folder")
    parser.add_argument("--size", type=int, default=224, help="of a view [pixels]")
    parser.add_argument("--sides", type=int, nargs="*", default=SIDES, help="of photographs that are made [pixels]")
    parser.add_argument("--images", type=int, default=12, help="that are made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="views of each image whose fidelity is measured")
    given = parser.parse_args()
    if given.folder is not None:
        keep(given.name, measure(find_images(given.folder), given.size, given.rounds, given.epochs))
        return
    for side in given.sides:
        with tempfile.TemporaryDirectory() as scratch:
            images = find_images(jpegs(Path(scratch), given.images, sizes=((side * 4 // 3, side),)))
            keep(f"made, {side}", measure(images, given.size, given.rounds, given.epochs))


if __name__ == "__main__":
    main()
