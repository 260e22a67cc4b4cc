"""How peers make two views of MoCo v2 from a JPEG. The rows of those with another distribution say so."""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import clocks
from benchmarks.apart import HERE, PeerProcess, Unavailable
from benchmarks.apart import PEERS as APART
from benchmarks.inputs import N, data_of, folder_of, ours, stacked, usual
from benchmarks.measure import Result, Row, Work, absent, installed, interleaved, result
from benchmarks.pictures import jpegs
from benchmarks.reference.transforms import open_rgb
from moco.recipe import DataSpec, View

Way = Callable[[Path], list[Tensor]]  # a file to its views
SAMPLING_BIAS = "another distribution: aliased, with more fine structure"


def lightly_views(data: DataSpec) -> Way:
    """lightly's MoCoV2Transform, whose defaults are MoCo v2's numbers, on Pillow images."""
    from lightly.transforms import MoCoV2Transform

    view = data.views[0]
    transform = MoCoV2Transform(
        input_size=data.size, min_scale=view.crop_area[0], sigmas=view.blur_sigma,
        normalize={"mean": list(data.mean), "std": list(data.std)},
    )  # fmt: skip
    return lambda path: transform(open_rgb(path))


def albumentations_views(data: DataSpec, *, area: bool) -> Way:
    """albumentations on OpenCV's arrays, with its default interpolation, or (`area`) averaging over pixels."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise it looks for a newer version on the network
    import cv2

    cv2.setNumThreads(1)
    interpolation = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    transforms = [_albumentations(view, data, interpolation) for view in data.views]

    def way(path: Path) -> list[Tensor]:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
        return [one(image=image)["image"] for one in transforms]

    return way


def _albumentations(view: View, data: DataSpec, interpolation: int) -> Any:
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    jitter = view.jitter
    change = A.ColorJitter(
        brightness=_around_one(jitter.brightness), contrast=_around_one(jitter.contrast),
        saturation=_around_one(jitter.saturation), hue=(-jitter.hue, jitter.hue), p=jitter.p,
    )  # fmt: skip
    grey = A.ToGray(p=view.grey)
    rare = [A.GaussianBlur(blur_limit=0, sigma_limit=view.blur_sigma, p=view.blur)] if view.blur else []
    rare += [A.Solarize(threshold_range=(0.5, 0.5), p=view.solarize)] if view.solarize else []
    return A.Compose([
        A.RandomResizedCrop(size=(data.size, data.size), scale=view.crop_area, ratio=view.crop_ratio,
                            interpolation=interpolation),
        *([grey, change] if view.grey_first else [change, grey]), *rare,
        A.HorizontalFlip(p=view.flip), A.Normalize(data.mean, data.std), ToTensorV2(),
    ])  # fmt: skip


def _around_one(strength: float) -> tuple[float, float]:
    return 1 - strength, 1 + strength


def tensor_views(data: DataSpec) -> Way:
    """torchvision's decoder and its transforms of tensors."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2 as T

    def transform(view: View) -> Any:
        jitter = view.jitter
        change = T.RandomApply(
            [T.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)], p=jitter.p
        )
        grey = T.RandomGrayscale(view.grey)
        rare = [T.RandomApply([T.GaussianBlur(13, view.blur_sigma)], p=view.blur)] if view.blur else []
        rare += [T.RandomSolarize(128, p=view.solarize)] if view.solarize else []
        return T.Compose([
            T.RandomResizedCrop(data.size, scale=view.crop_area, ratio=view.crop_ratio, antialias=True),
            *([grey, change] if view.grey_first else [change, grey]), *rare,
            T.RandomHorizontalFlip(view.flip), T.ToDtype(torch.float32, scale=True), T.Normalize(data.mean, data.std),
        ])  # fmt: skip

    transforms = [transform(view) for view in data.views]

    def way(path: Path) -> list[Tensor]:
        content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        image = decode_jpeg(content, mode=ImageReadMode.RGB)
        return [one(image) for one in transforms]

    return way


PEERS: dict[str, tuple[str, str, Callable[[DataSpec], Way]]] = {  # row -> package, description, constructor
    "lightly": ("lightly", "MoCoV2Transform", lightly_views),
    "torchvision-v2": ("torchvision", "transforms.v2 on tensors", tensor_views),
    "albumentations": ("albumentations", f"bilinear, its usual: {SAMPLING_BIAS}",
                       lambda data: albumentations_views(data, area=False)),
    "albumentations-area": ("albumentations", "by area: nearly the same distribution",
                            lambda data: albumentations_views(data, area=True)),
}  # fmt: skip


def named(peer: str) -> str:
    package, what, _ = PEERS[peer]
    return f"{package} {version(package)}, {what}"


def peers(rounds: int, images: int = N) -> Iterator[Result]:
    """Our float32 views of MoCo v2, in one thread, against peers that can be installed in this environment."""
    data = data_of("v2")
    with tempfile.TemporaryDirectory() as scratch:
        found, paths = folder_of(jpegs(Path(scratch), images))
        works: dict[str, Work] = {"usual": usual(paths, data), "ours": ours(found, data)}
        for peer, (package, _, make) in PEERS.items():
            if installed(package):
                works[peer] = partial(all_of, make(data), paths)
        times = interleaved(works, rounds=rounds)
    for peer, (package, _, _) in PEERS.items():
        if peer in times:
            yield _beside(peer, times["ours"], times[peer], times["usual"], named(peer))
        else:
            yield absent(f"input/v2/peers/{peer}", package)


def all_of(way: Way, paths: list[Path]) -> list[Tensor]:
    return stacked([way(path) for path in paths])


def _beside(peer: str, ours: list[float], theirs: list[float], usual: list[float], name: str) -> Result:
    itself = statistics.median(one / other for one, other in zip(theirs, usual, strict=True))
    return result(
        f"input/v2/peers/{peer}", ours, theirs, against=f"{name}; its own time is {itself:.2f} of the reference's"
    )


def apart(peer: str, rounds: int, images: int = N) -> Iterator[Result]:
    """The same against a peer in its own environment. The reference runs in a process like the peer's."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = jpegs(Path(scratch), images)
        try:
            if not clocks.sees_children():
                raise Unavailable("the CPU time of its process cannot be told without Linux's /proc")
            one = stack.enter_context(PeerProcess(APART[peer].python(), peer, folder))
            here = stack.enter_context(PeerProcess(Path(sys.executable), HERE, folder))
        except Unavailable as why:
            yield absent(f"input/v2/peers/{peer}", peer, str(why))
            return
        works = {"usual": here.work, "peer": one.work, "ours": ours(folder_of(folder)[0], data_of("v2"))}
        times = interleaved(works, rounds=rounds)
        what = "its operators on a CPU: another distribution" if peer == "nvidia-dali" else "the reference on it"
        yield _beside(peer, times["ours"], times["peer"], times["usual"], f"{one.what}, {what}")


ROWS = [
    Row("input/v2/peers", peers),
    Row("input/v2/peers/pillow-simd", partial(apart, "pillow-simd"), slow=True),
    Row("input/v2/peers/nvidia-dali", partial(apart, "nvidia-dali"), slow=True, large=True),
]
