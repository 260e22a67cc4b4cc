"""From files to views: ours against torchvision's transforms on Pillow, in one thread and in two.

Lower bound: decoding alone.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from benchmarks import clocks
from benchmarks.measure import Result, Row, Spent, Work, cpu_of, interleaved, result, spent, wall_of
from benchmarks.pictures import jpegs, small_pngs
from benchmarks.reference.transforms import Views, open_rgb, views_of
from moco import recipes
from moco.data.augment import cpu
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.folder import find_images
from moco.data.sources.images import Images
from moco.recipe import DataSpec

VERSIONS = {"v1": "moco_v1_r50", "v2": "moco_v2_r50", "v3": "moco_v3_vit_base"}
N, SMALL = 32, 256  # mini-batch of photos, and of 32 x 32 images
BATCHES = 6  # mini-batches per call with two threads
CPU = torch.device("cpu")
AGAINST = "torchvision's transforms on Pillow"
DECODED, COPIED = "lower bound: decoding alone, by libjpeg-turbo", "lower bound: writing the views to memory"


class ByteLoader(ViewLoader):
    """Mini-batches of cropped bytes, as they are copied to a GPU. The work of the GPU itself is not measured."""

    def _finish(self, plan: Any, slot: Any) -> Any:
        return slot


def data_of(version: str) -> DataSpec:
    return recipes.named(VERSIONS[version]).data


def batches(images: Images, data: DataSpec, *, steps: range, workers: int, as_bytes: bool) -> ViewLoader:
    """A loader whose mini-batches have all of `images`."""
    cpu.kernels(wait=True)
    kind, device = (ByteLoader, torch.device("meta")) if as_bytes else (ViewLoader, CPU)
    return kind(
        images, data, batch_size=len(images), seed=0, steps=steps, workers=workers, device=device,
        quarantine=Quarantine(None, 0, len(images)),
    )  # fmt: skip


def ours(images: Images, data: DataSpec, *, as_bytes: bool = False) -> Work:
    """The next mini-batch, made in the calling thread."""
    endless = iter(batches(images, data, steps=range(1 << 20), workers=0, as_bytes=as_bytes))
    return lambda: next(endless)


def ours_ahead(images: Images, data: DataSpec, *, as_bytes: bool = False) -> Work:
    """BATCHES mini-batches, made by two threads and read by the caller; the same ones in each call."""
    loader = batches(images, data, steps=range(BATCHES), workers=2, as_bytes=as_bytes)

    def work() -> None:
        for made in loader:
            if not as_bytes:  # bytes are already in the memory that the device copies from
                touch(made.views)

    return work


def usual(paths: list[Path], data: DataSpec) -> Work:
    views = views_of(data)
    return lambda: stacked([views(open_rgb(path)) for path in paths])


def usual_ahead(paths: list[Path], data: DataSpec) -> Work:
    """BATCHES mini-batches, made by the two persistent workers of a DataLoader."""
    return ahead(Views(paths, data, repeats=BATCHES), len(paths))


def ahead(views: "torch.utils.data.Dataset[list[Tensor]]", batch: int) -> Work:
    loader = torch.utils.data.DataLoader(
        views, batch_size=batch, num_workers=2, persistent_workers=True, worker_init_fn=_one_thread
    )

    def work() -> None:
        for batch_of_views in loader:
            touch(batch_of_views)

    return work


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def touch(views: list[Tensor]) -> float:
    """Read one number of each cache line."""
    return sum(float(view.permute(0, 2, 3, 1).reshape(-1)[::16].sum()) for view in views)


def stacked(images: list[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(list(view)) for view in zip(*images, strict=True)]


def decoding(paths: list[Path]) -> Work:
    return lambda: [simplejpeg.decode_jpeg(path.read_bytes(), "RGB") for path in paths]


def photos(version: str, rounds: int, images: int = N) -> Iterator[Result]:
    """A recipe's views of photos, in one thread and with two prefetching threads."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = jpegs(Path(scratch), images)
        yield from one_thread(version, folder, rounds)
        yield from two_threads(version, folder, rounds)


def one_thread(version: str, folder: Path, rounds: int) -> Iterator[Result]:
    data, (found, paths) = data_of(version), folder_of(folder)
    works = {
        "usual": usual(paths, data), "fused": ours(found, data), "hand-over": ours(found, data, as_bytes=True),
        "lower_bound": decoding(paths),
    }  # fmt: skip
    times = interleaved(works, rounds=rounds)
    for name in ("fused", "hand-over"):
        yield result(
            f"input/{version}/{name}/1-thread", times[name], times["usual"], lower_bound=times["lower_bound"],
            against=f"{AGAINST}; {DECODED}",
        )  # fmt: skip


def two_threads(version: str, folder: Path, rounds: int) -> Iterator[Result]:
    """Against a DataLoader with two workers."""
    data, (found, paths) = data_of(version), folder_of(folder)
    works = {
        "usual": usual_ahead(paths, data), "fused": ours_ahead(found, data),
        "hand-over": ours_ahead(found, data, as_bytes=True), "lower_bound": _repeated(BATCHES, decoding(paths)),
    }  # fmt: skip
    times = spent(works, rounds=rounds, repeat=1)
    for name in ("fused", "hand-over"):
        yield from both_clocks(
            f"input/{version}/{name}/2-threads",
            times[name],
            times["usual"],
            lower_bound=times["lower_bound"],
            bound_text=DECODED,
        )


def folder_of(folder: Path) -> tuple[Images, list[Path]]:
    images = find_images([folder])
    return images, [Path(images.path(index)) for index in range(len(images))]


def _repeated(repeats: int, work: Work) -> Work:
    return lambda: [work() for _ in range(repeats)]


def both_clocks(
    name: str, mine: list[Spent], theirs: list[Spent], *, lower_bound: list[Spent], bound_text: str
) -> Iterator[Result]:
    """A row in CPU time, if that of workers can be measured, and one in wall time, with half the lower bound."""
    what = "a DataLoader with 2 workers, the same transforms"
    if clocks.sees_children():
        yield result(
            name, cpu_of(mine), cpu_of(theirs), lower_bound=cpu_of(lower_bound), against=f"{what}; {bound_text}"
        )
    halved = [one.wall / 2 for one in lower_bound]
    yield result(
        f"{name}/wall",
        wall_of(mine),
        wall_of(theirs),
        lower_bound=halved,
        against=f"{what}, by the clock; {bound_text} / 2",
    )


def small(rounds: int, images: int = SMALL) -> Iterator[Result]:
    """Images of 32 x 32 pixels that are in memory."""
    data = recipes.named("moco_cifar").data
    with tempfile.TemporaryDirectory() as scratch:
        found, paths = folder_of(small_pngs(Path(scratch), images))
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
        views, made = views_of(data), torch.randn(len(data.views), images, 3, data.size, data.size)
        works = {
            "usual": lambda: stacked([views(Image.fromarray(one)) for one in pixels]),
            "ours": ours(found, data), "lower_bound": made.clone,
        }  # fmt: skip
        times = interleaved(works, rounds=rounds)
        yield result(
            "input/32/1-thread",
            times["ours"],
            times["usual"],
            lower_bound=times["lower_bound"],
            against=f"{AGAINST}; {COPIED}",
        )
        ahead_of_it = {
            "usual": ahead(InMemory(pixels, data, BATCHES), images), "ours": ours_ahead(found, data),
            "lower_bound": _repeated(BATCHES, made.clone),
        }  # fmt: skip
        both = spent(ahead_of_it, rounds=rounds, repeat=1)
        yield from both_clocks(
            "input/32/2-threads", both["ours"], both["usual"], lower_bound=both["lower_bound"], bound_text=COPIED
        )


class InMemory(torch.utils.data.Dataset[list[Tensor]]):
    """The views of images in memory, all `repeats` times."""

    def __init__(self, pixels: np.ndarray, data: DataSpec, repeats: int):
        self.pixels, self.views, self.repeats = pixels, views_of(data), repeats

    def __len__(self) -> int:
        return len(self.pixels) * self.repeats

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.views(Image.fromarray(self.pixels[index % len(self.pixels)]))


ROWS = [
    *(Row(f"input/{version}", partial(photos, version), slow=version != "v2") for version in VERSIONS),
    Row("input/32", small),
]
