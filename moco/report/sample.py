"""A sample of a run's images, with small pictures, features and views of them: what its pictures are made of."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader, eval_batches
from moco.data.sources.folder import Folder
from moco.data.sources.images import Images, Subset
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels
from moco.evaluate.features import set_eval_mode
from moco.recipe import DataSpec
from moco.report.pictures import QUERY
from moco.rng import fold, permute

MAX_IMAGES = 1000  # that are compared
SECONDS = 3.0  # maximum time to read images and compute features
BATCH = 32  # images between two checks of the time
MAX_VIEWED = 256  # images of which views are made
VIEW_SECONDS = 1.5  # maximum time to make views and compute their features
PIXELS, RUN = "raw pixels", "this run"  # names of the features


@dataclass(frozen=True, eq=False)
class Views:
    """Two views of some images of a sample, as a step of training compares them."""

    rows: Int64[np.ndarray, " m"]  # of the sample
    queries: UInt8[np.ndarray, "m s s 3"]  # reduced in size
    keys: UInt8[np.ndarray, "m s s 3"]
    places: Int64[np.ndarray, " m"]  # of the own key among all m, by similarity to the query: 1 is the nearest
    similarities: Float32[np.ndarray, " m"]  # cosine between query and own key


@dataclass(frozen=True, eq=False)
class ImageSample:
    """Some of a run's images, with their features."""

    ids: Int64[np.ndarray, " n"]
    names: Sequence[str]
    crops: UInt8[np.ndarray, "n s s 3"]  # the encoder's input, reduced in size
    features: dict[str, Float32[Tensor, "n _"]]  # by the name of the encoder
    labels: Int64[np.ndarray, " n"] | None  # index into `classes`; known for class folders only
    classes: Sequence[str]
    total: int  # images that it was drawn from

    def __len__(self) -> int:
        return len(self.ids)


def take_sample(
    images: Images, encoder: Encoder, data: DataSpec, *, device: torch.device, workers: int, seconds: float = SECONDS
) -> ImageSample:
    """Random images, the same in every run, with the features of the raw pixels and of the encoder.

    Unreadable images are skipped. After `seconds` no more are read, but always one batch.
    """
    count = min(MAX_IMAGES, len(images))
    chosen = permute(np.arange(count), len(images), fold(0))
    pixels, ids, crops = Pixels(data).to(device), list[Tensor](), list[Tensor]()
    features: dict[str, list[Tensor]] = {PIXELS: [], RUN: []}
    batches = eval_batches(
        Subset(images, chosen), data, batch_size=BATCH, device=device, workers=workers,
        quarantine=Quarantine(None, count, count),
    )  # fmt: skip
    start = time.monotonic()
    with closing(batches), set_eval_mode(encoder):
        for x, places in batches:
            ids.append(places.cpu())
            crops.append(_small(x, pixels))
            for name, network in zip(features, (pixels, encoder), strict=True):
                features[name].append(network.features(x.clone()).float().cpu())  # some change their input in place
            if time.monotonic() - start > seconds:
                break
    if not ids:
        return ImageSample(np.zeros(0, np.int64), [], np.zeros((0, 1, 1, 3), np.uint8), {}, None, [], len(images))
    joined = {name: torch.cat(parts) for name, parts in features.items()}
    found = chosen[torch.cat(ids).numpy()]
    known = images.labels if isinstance(images, Folder) else None  # others may have to read every image for its label
    return ImageSample(
        found, [images.names[int(i)] for i in found], torch.cat(crops).numpy(), joined,
        None if known is None else known[found], list(images.classes) if known is not None else [], len(images),
    )  # fmt: skip


def take_views(
    sample: ImageSample, images: Images, encoder: Encoder, data: DataSpec, *, device: torch.device, workers: int,
    processes: bool = False, seconds: float = VIEW_SECONDS,
) -> Views | None:  # fmt: skip
    """Views of the first images of a sample, augmented as in training, and whether they find each other.

    After `seconds` no more are made, but always one batch. None for fewer than two images.
    """
    count = min(MAX_VIEWED, len(sample))
    rows = min(BATCH, count)
    if count < 2:
        return None
    loader = ViewLoader(
        Subset(images, sample.ids[:count]), data.pair, batch_size=rows, seed=0, steps=range(count // rows),
        workers=workers, device=device, quarantine=Quarantine(None, count, count), processes=processes,
    )  # fmt: skip
    pixels, which = Pixels(data).to(device), list[Tensor]()
    crops, features = (list[Tensor](), list[Tensor]()), (list[Tensor](), list[Tensor]())
    batches, start = iter(loader), time.monotonic()
    with closing(batches), set_eval_mode(encoder):  # type: ignore[type-var]
        for views, ids in batches:
            which.append(ids.cpu())
            for view, small, embedded in zip(views, crops, features, strict=True):
                small.append(_small(view, pixels))
                embedded.append(F.normalize(encoder.features(view.clone()).float()).cpu())
            if time.monotonic() - start > seconds:
                break
    q, k = (torch.cat(parts) for parts in features)
    similarities = q @ k.T
    own = similarities.diagonal()
    places = 1 + (similarities > own[:, None]).sum(dim=1)
    return Views(
        torch.cat(which).numpy(), torch.cat(crops[0]).numpy(), torch.cat(crops[1]).numpy(), places.numpy(),
        own.numpy().copy(),
    )  # fmt: skip


def _small(x: Tensor, pixels: Pixels) -> Tensor:
    """Normalized images as colours, at most as large as on the sheet: N x s x s x 3 bytes. Of bands the first three."""
    colours = x * pixels.get_buffer("std") + pixels.get_buffer("mean")
    colours = colours[:, [0, 1, 2] if x.shape[1] >= 3 else [0, 0, 0]]
    if x.shape[-1] > QUERY:
        colours = F.adaptive_avg_pool2d(colours, QUERY)
    return (colours.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu()
