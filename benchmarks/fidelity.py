"""`python -m benchmarks.fidelity`: compare the distribution of views, ours and the peers', with the reference's.

Statistics of MoCo v2's views of the same photos with independent random numbers. The reference is measured twice, with
different random numbers, to show the differences due to chance. (tests/data tests that our views equal Pillow's bit for
bit, given the same random numbers.)
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import data_of, folder_of, ours, usual
from benchmarks.measure import Work, installed
from benchmarks.peers_input import PEERS, all_of
from benchmarks.pictures import jpegs
from moco.recipe import DataSpec

IMAGES, PASSES = 64, 8  # each pass has two views of each image
BINS = 64
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)

Marginals = dict[str, float]
Statistic = Callable[[Tensor], Tensor]  # views N x 3 x S x S in [0, 255] -> a number each


def gradient(views: Tensor) -> Tensor:
    """Mean absolute luma difference between neighbours: high if a resize does not average (aliasing)."""
    luma = (views * LUMA).sum(1)
    return (luma.diff(dim=1).abs().mean((1, 2)) + luma.diff(dim=2).abs().mean((1, 2))) / 2


def chroma(views: Tensor) -> Tensor:
    """Mean difference between the largest and the smallest channel."""
    return (views.amax(1) - views.amin(1)).mean((1, 2))


STATISTICS: dict[str, Statistic] = {
    "mean": lambda views: views.mean((1, 2, 3)),
    "deviation": lambda views: views.std((1, 2, 3)),
    "gradient": gradient,
    "chroma": chroma,
    "grey share": lambda views: ((views.amax(1) - views.amin(1)).amax((1, 2)) < 1.5).float(),
}


def marginals(passes: Iterator[list[Tensor]], data: DataSpec) -> tuple[Marginals, np.ndarray]:
    """The mean of each statistic over all views, and the histogram of their values."""
    found: dict[str, list[Tensor]] = {name: [] for name in STATISTICS}
    histogram = np.zeros(BINS)
    mean, std = (torch.tensor(row).view(1, 3, 1, 1) for row in (data.mean, data.std))
    for views in (one for made in passes for one in made):
        pixels = (views * std + mean).clamp(0, 1) * 255
        for name, statistic in STATISTICS.items():
            found[name].append(statistic(pixels))
        histogram += torch.histc(pixels, BINS, 0, 255).numpy()
    return {name: float(torch.cat(values).mean()) for name, values in found.items()}, histogram / histogram.sum()


def ways(folder: Path, data: DataSpec) -> dict[str, Work]:
    """By name, a function that makes new views of all photos at each call."""
    images, paths = folder_of(folder)
    mine = ours(images, data)
    found: dict[str, Work] = {
        "reference": usual(paths, data), "reference, other random numbers": usual(paths, data),
        "ours": lambda: mine().views,
    }  # fmt: skip
    for peer, (package, _, make) in PEERS.items():
        if installed(package):
            way = make(data)
            found[peer] = lambda way=way: all_of(way, paths)
    return found


def rows(images: int, passes: int) -> Iterator[str]:
    """The rows of a table: each statistic / the reference's, and the total variation distance of the histograms."""
    data = data_of("v2")
    yield f"| views of MoCo v2 | {' | '.join(STATISTICS)} | histogram |\n|---|{'---|' * (len(STATISTICS) + 1)}"
    with tempfile.TemporaryDirectory() as scratch:
        first: tuple[Marginals, np.ndarray] | None = None
        for seed, (name, work) in enumerate(ways(jpegs(Path(scratch), images), data).items()):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  # which peers draw from
            torch.manual_seed(seed)
            mine, histogram = marginals((work() for _ in range(passes)), data)  # pyright: ignore[reportArgumentType]
            first = first or (mine, histogram)
            over = [f"{mine[one] / first[0][one] if first[0][one] else float('nan'):.3f}" for one in STATISTICS]
            yield f"| {name} | {' | '.join(over)} | {abs(histogram - first[1]).sum() / 2:.4f} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--passes", type=int, default=PASSES, help="of two views of each image")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for row in rows(args.images, args.passes):
        print(row, flush=True)


if __name__ == "__main__":
    main()
