"""Draw the nearest neighbours among a run's own images, by its encoder and by raw pixels."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import eval_batches
from moco.data.sources.folder import Folder
from moco.data.sources.images import Images, Subset
from moco.encoders import Encoder
from moco.evaluate.baselines import Pixels
from moco.evaluate.features import evaluating
from moco.evaluate.knn import nearest
from moco.recipe import DataSpec
from moco.report.pictures import QUERY, Neighbours, neighbour_sheet
from moco.rng import fold, permuted

MAX_IMAGES = 1000  # that are compared
SECONDS = 3.0  # maximum time to read images and compute features
BATCH = 32  # images between two checks of the time
QUERIES, NEAREST = 6, 8


@dataclass(frozen=True, eq=False)
class Sample:
    """Some of a run's images, with their features."""

    ids: Int64[np.ndarray, " n"]
    crops: UInt8[np.ndarray, "n s s 3"]  # the encoder's input, reduced in size
    features: dict[str, Float32[Tensor, "n _"]]  # by the name of the encoder


def draw_own_neighbours(
    out: Path,
    images: Images,
    encoder: Encoder,
    data: DataSpec,
    *,
    device: torch.device,
    workers: int = 0,
    seconds: float = SECONDS,
) -> None:
    """Write a PNG of the nearest neighbours of a few images, among up to 1,000 that can be read in `seconds`.

    If the images are in class folders, the queries are of different classes, and neighbours are marked right or wrong.

    Raises:
        ValueError: fewer than two images can be read.
    """
    sample = take_sample(images, encoder, data, device=device, workers=workers, seconds=seconds)
    if len(sample.ids) < 2:
        raise ValueError(f"expected at least 2 images that can be read, got {len(sample.ids)}")
    known = (
        images.labels if isinstance(images, Folder) else None
    )  # other data sets may have to read every image for its label
    labels = None if known is None else known[sample.ids]
    queries = _first_of_each(np.arange(len(sample.ids)) if labels is None else labels)
    neighbours: list[Neighbours] = []
    for name, x in sample.features.items():
        rows = _without_itself(nearest(x, x[queries], k=NEAREST + 1).indices.numpy(), queries)
        correct = None if labels is None else (labels[rows] == labels[queries, None]).tolist()
        neighbours.append(Neighbours(name, [[sample.crops[i] for i in row] for row in rows], correct))
    captions = None if labels is None else [images.classes[int(label)] for label in labels[queries]]
    title = f"The nearest of {len(sample.ids):,} of the run's images"
    neighbour_sheet(out, [sample.crops[i] for i in queries], neighbours=neighbours, labels=captions, title=title)


def take_sample(
    images: Images, encoder: Encoder, data: DataSpec, *, device: torch.device, workers: int, seconds: float
) -> Sample:
    """Random images, the same in every run, with the features of the raw pixels and of the encoder.

    Unreadable images are skipped. After `seconds` no more are read, but always one batch.
    """
    count = min(MAX_IMAGES, len(images))
    chosen = permuted(np.arange(count), len(images), fold(0))
    pixels, ids, crops = Pixels(data).to(device), list[Tensor](), list[Tensor]()
    features: dict[str, list[Tensor]] = {"raw pixels": [], "this run": []}
    batches = eval_batches(
        Subset(images, chosen), data, batch_size=BATCH, device=device, workers=workers,
        quarantine=Quarantine(None, count, count),
    )  # fmt: skip
    start = time.monotonic()
    with closing(batches), evaluating(encoder):
        for x, places in batches:
            ids.append(places.cpu())
            crops.append(_small(x, pixels))
            for name, network in zip(features, (pixels, encoder), strict=True):
                features[name].append(network.features(x).float().cpu())
            if time.monotonic() - start > seconds:
                break
    if not ids:
        return Sample(np.zeros(0, np.int64), np.zeros((0, 1, 1, 3), np.uint8), {})
    joined = {name: torch.cat(parts) for name, parts in features.items()}
    return Sample(chosen[torch.cat(ids).numpy()], torch.cat(crops).numpy(), joined)


def _small(x: Tensor, pixels: Pixels) -> Tensor:
    """Normalized images as colours, at most as large as on the sheet: N x s x s x 3 bytes."""
    colours = x * pixels.get_buffer("std") + pixels.get_buffer("mean")
    if x.shape[-1] > QUERY:
        colours = F.adaptive_avg_pool2d(colours, QUERY)
    return (colours.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu()


def _first_of_each(labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " q"]:
    """The first image of each of the first classes, up to QUERIES."""
    return np.sort(np.unique(labels, return_index=True)[1])[:QUERIES]


def _without_itself(rows: Int64[np.ndarray, "q k"], queries: Int64[np.ndarray, " q"]) -> Int64[np.ndarray, "q k-1"]:
    """The neighbours of each query, without the query. With identical images the query may not come first."""
    others = [[i for i in row if i != query][: rows.shape[1] - 1] for row, query in zip(rows, queries, strict=True)]
    return np.array(others, dtype=np.int64)
