"""A kNN score of the encoder during training, on labelled images in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt8
from torch import Tensor

from moco.data.augment.cpu import eval_crop
from moco.data.augment.normalize import normalize
from moco.data.decode.decode import BadImage
from moco.data.loader.threads import in_order
from moco.data.sources.band_images import in_bands
from moco.data.sources.folder import DataError, Images
from moco.data.sources.labels import require_labels
from moco.data.sources.open import Sources
from moco.data.sources.overlap import check_disjoint
from moco.data.sources.split import split_sources
from moco.encoders import Encoder
from moco.evaluate.features import Features, batch_for, set_eval_mode
from moco.evaluate.knn import knn
from moco.recipe import DataSpec
from moco.rng import fold, permute

TRAIN, TEST = 10_000, 2_000  # images at most
MEMORY = 2**30  # [bytes] at most, for both together: at 224 x 224 pixels 7,133 images
CHUNK = 128  # images that a thread reads at a time
MONITOR_K = 20  # neighbours: the bank is small


@dataclass(frozen=True, eq=False)
class LabelledCrops:
    """Evaluation crops with their labels, on the host."""

    crops: UInt8[Tensor, "n 3 S S"] | Float32[Tensor, "n c S S"]
    labels: Int[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Monitor:
    """Labelled images in memory, and the kNN score of an encoder on them."""

    train: LabelledCrops
    test: LabelledCrops
    classes: Sequence[str]
    data: DataSpec
    device: torch.device
    how: str  # which images, for the log

    def __str__(self) -> str:
        """The line in the log."""
        return (
            f"kNN score: {len(self.train.labels):,} labelled images, {len(self.test.labels):,} test images; {self.how}"
        )

    def score(self, encoder: Encoder) -> float:
        """kNN accuracy [percent] of the pooled features of `encoder`, which does not change."""
        return knn(
            self._features(encoder, self.train), self._features(encoder, self.test), k=MONITOR_K, device=self.device
        ).accuracy

    def _features(self, encoder: Encoder, kept: LabelledCrops) -> Features:
        with set_eval_mode(encoder):
            x = torch.cat([self._encode(encoder, crops) for crops in kept.crops.split(batch_for(self.data))])
        return Features(x, kept.labels, self.classes, [""] * len(x), torch.arange(len(x)))

    def _encode(self, encoder: Encoder, crops: Tensor) -> Tensor:
        return encoder.features(normalize(crops.to(self.device), mean=self.data.mean, std=self.data.std)).float().cpu()


def monitor_for(
    eval_data: Sources, data: DataSpec, *, device: torch.device, workers: int, max_bytes: int = MEMORY
) -> Monitor:
    """A monitor on at most 10,000 training and 2,000 test images of `eval_data`, the same ones in every run.

    Images that cannot be read are left out.

    Raises:
        DataError: no labels, no readable image, or an error of `split_sources`.
    """
    split = split_sources(eval_data, groups=data.groups)
    check_disjoint(split.train, split.test)
    share = min(1.0, max_bytes / data.view_bytes / (TRAIN + TEST))
    train, test = (
        _read_crops(images, data, int(share * most), workers)
        for images, most in ((split.train, TRAIN), (split.test, TEST))
    )
    return Monitor(train, test, split.train.classes, data, device, split.how)


def _read_crops(images: Images, data: DataSpec, most: int, workers: int) -> LabelledCrops:
    labels, images = require_labels(images).labels, in_bands(images, data)
    assert labels is not None
    chosen: list[int] = sorted(permute(np.arange(min(most, len(images))), len(images), fold(0)).tolist())

    def cut(some: list[int], gone: Event) -> list[tuple[int, np.ndarray]]:
        found = []
        for index in some:
            try:
                found.append((index, eval_crop(images.read(index), data)))
            except BadImage:
                continue
        return found

    parts = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    found = [one for part in in_order(cut, parts, workers=workers) for one in part]
    if not found:
        raise DataError(f"none of the {len(chosen):,} images chosen for the kNN score can be read")
    ids, crops = zip(*found, strict=True)
    return LabelledCrops(torch.from_numpy(np.stack(crops)), torch.from_numpy(labels[list(ids)]))
