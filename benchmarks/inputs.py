"""Files to views: ours against torchvision's transforms on Pillow, in one thread and in two. Floor: decoding alone."""

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
from benchmarks.reference.transforms import Views, opened, views_of
from moco import recipes
from moco.data.augment import cpu
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.sources.folder import find_images
from moco.data.sources.images import Images
from moco.recipe import DataSpec

VERSIONS = {"v1": "moco_v1_r50", "v2": "moco_v2_r50", "v3": "moco_v3_vit_base"}
N, SMALL = 32, 256  # images of a mini-batch: photos, and pictures of 32 x 32
BATCHES = 6  # that two threads make before they have to begin anew
CPU = torch.device("cpu")
AGAINST = "torchvision's transforms on Pillow"
DECODED, COPIED = "lower bound: decoding alone, by libjpeg-turbo", "lower bound: writing the views to memory"


class HandedOver(ViewLoader):
    """Mini-batches as bytes, as another device than the CPU gets them: that device has no part in the time."""

    def _finish(self, plan: Any, slot: Any) -> Any:
        return slot


def data_of(version: str) -> DataSpec:
    return recipes.named(VERSIONS[version]).data


def batches(images: Images, data: DataSpec, *, steps: range, workers: int, handed_over: bool) -> ViewLoader:
    """All of `images` in each mini-batch."""
    cpu.kernels(wait=True)
    kind, device = (HandedOver, torch.device("meta")) if handed_over else (ViewLoader, CPU)
    return kind(
        images, data, batch_size=len(images), seed=0, steps=steps, workers=workers, device=device,
        quarantine=Quarantine(None, 0, len(images)),
    )  # fmt: skip


def ours(images: Images, data: DataSpec, *, handed_over: bool = False) -> Work:
    """The next mini-batch, made when it is asked for."""
    endless = iter(batches(images, data, steps=range(1 << 20), workers=0, handed_over=handed_over))
    return lambda: next(endless)


def ours_ahead(images: Images, data: DataSpec, *, handed_over: bool = False) -> Work:
    """Some mini-batches by two threads, read by the caller; the same ones every time."""
    loader = batches(images, data, steps=range(BATCHES), workers=2, handed_over=handed_over)

    def work() -> None:
        for made in loader:
            if not handed_over:  # bytes lie where the device fetches them
                look_at(made.views)

    return work


def usual(paths: list[Path], data: DataSpec) -> Work:
    views = views_of(data)
    return lambda: stacked([views(opened(path)) for path in paths])


def usual_ahead(paths: list[Path], data: DataSpec) -> Work:
    """Some mini-batches by the two workers of a DataLoader, who have started before."""
    return ahead(Views(paths, data, repeats=BATCHES), len(paths))


def ahead(views: "torch.utils.data.Dataset[list[Tensor]]", batch: int) -> Work:
    loader = torch.utils.data.DataLoader(
        views, batch_size=batch, num_workers=2, persistent_workers=True, worker_init_fn=_one_thread
    )

    def work() -> None:
        for batch_of_views in loader:
            look_at(batch_of_views)

    return work


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def look_at(views: list[Tensor]) -> float:
    """A number of each cache line."""
    return sum(float(view.permute(0, 2, 3, 1).reshape(-1)[::16].sum()) for view in views)


def stacked(images: list[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(list(view)) for view in zip(*images, strict=True)]


def decoding(paths: list[Path]) -> Work:
    return lambda: [simplejpeg.decode_jpeg(path.read_bytes(), "RGB") for path in paths]


def photos(version: str, rounds: int, images: int = N) -> Iterator[Result]:
    """A recipe's views of photos, in one thread, and by two that work ahead."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = jpegs(Path(scratch), images)
        yield from one_thread(version, folder, rounds)
        yield from two_threads(version, folder, rounds)


def one_thread(version: str, folder: Path, rounds: int) -> Iterator[Result]:
    data, (found, paths) = data_of(version), folder_of(folder)
    works = {
        "usual": usual(paths, data), "fused": ours(found, data), "hand-over": ours(found, data, handed_over=True),
        "floor": decoding(paths),
    }  # fmt: skip
    times = interleaved(works, rounds=rounds)
    for name in ("fused", "hand-over"):
        yield result(
            f"input/{version}/{name}/1-thread", times[name], times["usual"], floor=times["floor"],
            against=f"{AGAINST}; {DECODED}",
        )  # fmt: skip


def two_threads(version: str, folder: Path, rounds: int) -> Iterator[Result]:
    """Against a DataLoader with two workers."""
    data, (found, paths) = data_of(version), folder_of(folder)
    works = {
        "usual": usual_ahead(paths, data), "fused": ours_ahead(found, data),
        "hand-over": ours_ahead(found, data, handed_over=True), "floor": _times(BATCHES, decoding(paths)),
    }  # fmt: skip
    times = spent(works, rounds=rounds, repeat=1)
    for name in ("fused", "hand-over"):
        yield from both_clocks(
            f"input/{version}/{name}/2-threads", times[name], times["usual"], floor=times["floor"], floor_says=DECODED
        )


def folder_of(folder: Path) -> tuple[Images, list[Path]]:
    images = find_images([folder])
    return images, [Path(images.path(index)) for index in range(len(images))]


def _times(repeats: int, work: Work) -> Work:
    return lambda: [work() for _ in range(repeats)]


def both_clocks(
    name: str, mine: list[Spent], theirs: list[Spent], *, floor: list[Spent], floor_says: str
) -> Iterator[Result]:
    """A row in CPU time, where workers' can be told, and one by the clock, by which two threads halve the floor."""
    what = "a DataLoader with 2 workers, the same transforms"
    if clocks.sees_children():
        yield result(name, cpu_of(mine), cpu_of(theirs), floor=cpu_of(floor), against=f"{what}; {floor_says}")
    halved = [one.wall / 2 for one in floor]
    yield result(
        f"{name}/wall", wall_of(mine), wall_of(theirs), floor=halved, against=f"{what}, by the clock; {floor_says} / 2"
    )


def small(rounds: int, images: int = SMALL) -> Iterator[Result]:
    """Pictures of 32 x 32 that have been read before."""
    data = recipes.named("moco_cifar").data
    with tempfile.TemporaryDirectory() as scratch:
        found, paths = folder_of(small_pngs(Path(scratch), images))
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
        views, made = views_of(data), torch.randn(len(data.views), images, 3, data.size, data.size)
        works = {
            "usual": lambda: stacked([views(Image.fromarray(one)) for one in pixels]),
            "ours": ours(found, data), "floor": made.clone,
        }  # fmt: skip
        times = interleaved(works, rounds=rounds)
        yield result(
            "input/32/1-thread", times["ours"], times["usual"], floor=times["floor"], against=f"{AGAINST}; {COPIED}"
        )
        ahead_of_it = {
            "usual": ahead(InMemory(pixels, data, BATCHES), images), "ours": ours_ahead(found, data),
            "floor": _times(BATCHES, made.clone),
        }  # fmt: skip
        both = spent(ahead_of_it, rounds=rounds, repeat=1)
        yield from both_clocks(
            "input/32/2-threads", both["ours"], both["usual"], floor=both["floor"], floor_says=COPIED
        )


class InMemory(torch.utils.data.Dataset[list[Tensor]]):
    """The views of pictures in memory, each `repeats` times over."""

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
