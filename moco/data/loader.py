"""Mini-batches of views, made ahead by threads; the same for any number of threads and on any start."""

import time
from collections.abc import Iterator
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from moco.data import augment
from moco.data.decode import BadImage
from moco.data.images import DataError, Images
from moco.data.quarantine import Quarantine
from moco.data.sampler import Draw, StepSampler
from moco.data.small import preload_small
from moco.data.threads import Abandoned, in_order
from moco.recipe import DataSpec
from moco.rng import fold

TRIES = 100  # images that are asked for in place of a bad one


class Batch(NamedTuple):
    """Two views of each of N images, in float32, and the images' indices, on the device."""

    views: list[Float[Tensor, "N 3 S S"]]
    ids: Int64[Tensor, " N"]


class Crops(NamedTuple):
    """A mini-batch before its colours are changed: what a thread makes, on the host."""

    crops: list[UInt8[Tensor, "N 3 S S"]]
    looks: list[augment.Look]
    ids: Int64[Tensor, " N"]


class ViewLoader:
    """The mini-batches of `steps`, as a function of (images, data, batch_size, seed, step) alone.

    Images are decoded once for both views. Small ones of one size are kept in memory, and their views are made a whole
    mini-batch at a time; the images alone decide which way is taken (see small.py). Colours are changed on the device:
    by the threads where that is the CPU, otherwise in the consumer's thread.

    A bad image is set aside, and another takes its place, drawn by (seed, epoch, its index); `ids` hold that one's.

    Args:
        batch_size: over all ranks; iteration gives this rank's share.
        workers: threads that work ahead, a mini-batch each; 0 makes every mini-batch when it is asked for.

    Raises:
        ValueError: see StepSampler. DataError: more bad images than `quarantine` bears with.
    """

    def __init__(
        self,
        images: Images,
        data: DataSpec,
        *,
        batch_size: int,
        seed: int,
        steps: range,
        rank: int = 0,
        world_size: int = 1,
        workers: int,
        device: torch.device,
        quarantine: Quarantine,
    ):
        self.sampler = StepSampler(
            len(images), batch_size, seed=seed, steps=steps, rank=rank, world_size=world_size
        )  # fmt: skip
        self.images, self.data, self.seed = images, data, seed
        self.workers, self.device, self.quarantine = workers, device, quarantine
        self.small = preload_small(images, quarantine, workers=workers)
        self.waited = 0.0  # [s] that the consumer has waited for mini-batches so far

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        on_host = self.device.type == "cpu"
        made = in_order(self._batch if on_host else self._crops, self.sampler, workers=self.workers)
        try:
            while True:
                start = time.perf_counter()
                one = next(made, None)
                batch = one if one is None or isinstance(one, Batch) else self._finish(one)
                self.waited += time.perf_counter() - start
                if batch is None:
                    return
                yield batch
        finally:
            made.close()

    def _batch(self, draw: Draw, gone: Event) -> Batch:
        return self._finish(self._crops(draw, gone))

    def _crops(self, draw: Draw, gone: Event) -> Crops:
        dice = [
            augment.cast(self.seed, draw.epoch, ids=draw.ids, view_index=index) for index in range(len(self.data.views))
        ]
        looks = [augment.look(view, die) for view, die in zip(self.data.views, dice, strict=True)]
        crops, ids = self._cut_together(draw, dice) if self.small else self._cut_singly(draw, dice, gone)
        return Crops(crops, looks, torch.from_numpy(ids))

    def _cut_together(self, draw: Draw, dice: list[augment.Dice]) -> tuple[list[Tensor], np.ndarray]:
        """The crops of each view, and the indices of the images used, from the images in memory."""
        assert self.small is not None
        ids = draw.ids.copy()
        for row in np.flatnonzero(~self.small.good[ids]):
            ids[row] = next(index for index in self._tried(draw.epoch, int(ids[row])) if self.small.good[index])
        images = self.small.pixels[torch.from_numpy(ids)]
        heights, widths = (np.full(len(ids), side) for side in images.shape[2:])
        crops = []
        for view, die in zip(self.data.views, dice, strict=True):
            boxes = augment.crop_boxes(view, die, heights=heights, widths=widths)
            crops.append(augment.crop_batch(images, boxes, flips=augment.flips(view, die), size=self.data.size))
        return crops, ids

    def _cut_singly(self, draw: Draw, dice: list[augment.Dice], gone: Event) -> tuple[list[Tensor], np.ndarray]:
        """The same, image by image: whole images of any size would not fit into memory side by side."""
        size, ids = self.data.size, draw.ids.copy()
        crops = [torch.empty(len(ids), 3, size, size, dtype=torch.uint8) for _ in dice]
        flips = [augment.flips(view, die) for view, die in zip(self.data.views, dice, strict=True)]
        for row, index in enumerate(draw.ids):
            if gone.is_set():
                raise Abandoned
            ids[row], image = self._read(draw.epoch, int(index))
            for which, view in enumerate(self.data.views):
                die = augment.cast(self.seed, draw.epoch, ids=draw.ids[row : row + 1], view_index=which)
                height, width, _ = image.shape
                box = augment.crop_boxes(view, die, heights=np.array([height]), widths=np.array([width]))[0]
                cut = augment.crop(image, box, flip=bool(flips[which][row]), size=size)
                crops[which][row] = torch.from_numpy(cut)
        return crops, ids

    def _read(self, epoch: int, index: int) -> tuple[int, UInt8[np.ndarray, "H W 3"]]:
        """Image `index`, or the one that takes its place, with its own index."""
        for instead in self._tried(epoch, index):
            try:
                return instead, self.images.read(instead)
            except BadImage as bad:
                self.quarantine.add(bad.name, bad.reason)
        raise AssertionError("there is always one to be tried")

    def _tried(self, epoch: int, index: int) -> Iterator[int]:
        """`index`, then those that may take its place, in turn. Raises DataError when all of them were tried."""
        yield index
        for attempt in range(TRIES):
            yield fold(self.seed, epoch, index, attempt) % len(self.images)
        raise DataError(f"{TRIES} images drawn to take the place of a bad one are all bad: see bad_images.csv")

    def _finish(self, made: Crops) -> Batch:
        views = [
            augment.normalize(augment.colour(_moved(crops, self.device), look), mean=self.data.mean, std=self.data.std)
            for crops, look in zip(made.crops, made.looks, strict=True)
        ]
        return Batch(views, _moved(made.ids, self.device))


def eval_batches(
    images: Images,
    data: DataSpec,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    quarantine: Quarantine | None = None,
) -> Iterator[tuple[Float[Tensor, "N 3 S S"], Int64[Tensor, " N"]]]:
    """Every image once and in order, as evaluation sees it, with its index.

    Raises:
        DataError: a bad image; with a `quarantine`, which takes it and leaves it out, only when there are too many.
    """

    def look_at(some: range, gone: Event) -> tuple[Tensor, Tensor]:
        crops, ids = [], []
        for index in some:
            if gone.is_set():
                raise Abandoned
            try:
                crops.append(augment.eval_crop(images.read(index), data))
                ids.append(index)
            except BadImage as bad:
                if quarantine is None:
                    raise DataError(f"{bad}: mend or remove it") from bad
                quarantine.add(bad.name, bad.reason)
        together = np.stack(crops) if crops else np.zeros((0, 3, data.size, data.size), dtype=np.uint8)
        return torch.from_numpy(together), torch.tensor(ids, dtype=torch.int64)

    starts = range(0, len(images), batch_size)
    parts = [range(start, min(start + batch_size, len(images))) for start in starts]
    for crops, ids in in_order(look_at, parts, workers=workers):
        if len(ids):
            crops = augment.normalize(_moved(crops, device), mean=data.mean, std=data.std)
            yield crops, _moved(ids, device)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device; to a GPU through page-locked memory, so that the host need not wait."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
