"""Mini-batches of views, made ahead by threads or processes: the same for any number of them and from any step on."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from moco.data.augment import cpu
from moco.data.augment.colour import colour
from moco.data.augment.kernel_loading import load_kernels
from moco.data.augment.normalize import normalize
from moco.data.decode.decode import BadImage
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.buffers import BufferPool, Ring, Slot
from moco.data.loader.cache import cache_for
from moco.data.loader.prefetch import prefetch_items
from moco.data.loader.processes import WorkerBatch, in_processes
from moco.data.loader.sampler import StepSampler
from moco.data.loader.shrunk import SHRUNK_MEMORY, ShrunkImages
from moco.data.loader.threads import Abandoned, in_order
from moco.data.loader.view_maker import CRASH, DrawnBatch, Task, ViewMaker, check_bad_on_all_ranks
from moco.data.shards.shards import Shards
from moco.data.sources.band_images import in_bands
from moco.data.sources.images import DataError, Images, StoreError, prefetch
from moco.data.sources.torch_dataset import for_process
from moco.recipe import DataSpec

ROWS = 8  # images in a thread's task: few, so that all threads work on the mini-batch that is due first
AHEAD_IMAGES = 256  # images of a store that are read ahead of an evaluation
CACHED_ROWS = 128  # the same, of images in memory
AHEAD = 2  # mini-batches that are made ahead: the next one, and one more for a step that is shorter than most


class ViewBatch(NamedTuple):
    """Two views of each of N images, in float32, and the images' indices, on the device."""

    views: list[Float[Tensor, "N c S S"]]
    ids: Int64[Tensor, " N"]


class ViewLoader:
    """The mini-batches of `steps`, as a function of (images, data, batch_size, seed, step) alone.

    Threads decode and crop a few images at a time and write the views as bytes into a ring of buffers. Where the
    device is the CPU, they also change the colours. To another device the bytes are copied, and colours are changed
    there. An image is decoded once for both views; small images of one size stay in memory.

    A bad image is skipped and replaced by another one, drawn by (seed, epoch, its index); `ids` has the other's index.

    Args:
        batch_size: over all ranks; iteration gives this rank's share.
        workers: threads that work ahead; 0 makes every mini-batch when it is due.
        processes: the workers are processes (see processes.py).
        compiled: on a device other than the CPU, colours are changed by code that torch has compiled.
        first_view: which view of an image `data.views` begins with.
        order: see StepSampler.
        dealt: other ranks make the other views of these images (see DealtLoader).

    Raises:
        ValueError: see StepSampler. DataError: more bad images than `quarantine` tolerates.
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
        processes: bool = False,
        compiled: bool = False,
        first_view: int = 0,
        order: Callable[[int], Int64[np.ndarray, " B"]] | None = None,
        dealt: bool = False,
    ):
        self.sampler = StepSampler(
            len(images), batch_size, seed=seed, steps=steps, rank=rank, world_size=world_size, order=order,
            shards=images.counts if isinstance(images, Shards) and data.order == "shards" else None,
        )  # fmt: skip
        read_ahead = images.read_ahead if isinstance(images, Shards) and data.order == "shards" else None
        images = in_bands(images, data)
        self.images, self.data, self.quarantine = images, data, quarantine
        self.workers, self.device, self.compiled = workers, device, compiled
        self.processes = processes and workers > 0
        self.crashing: set[int] = set()  # images that crashed the process that read them
        if self.processes:
            for_process(images)  # refuse what cannot be copied before a process is started
            cache = None  # it would be one copy per process
        else:
            images = self.images = self._shrunk(images)
            is_exact = data.bands is None and (
                data.decode == "exact" or data.shrink is not None
            )  # what the cache keeps
            cache = cache_for(images, self._first_size()) if is_exact else None
        self.maker = ViewMaker(
            images, data, seed, quarantine, coloured=device.type == "cpu" or data.bands is not None, cache=cache,
            crashing=self.crashing, first_view=first_view, dealt=dealt, read_ahead=read_ahead,
        )  # fmt: skip
        self.pool = BufferPool()
        self.waited = 0.0  # [s] that the consumer has waited for mini-batches so far

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[ViewBatch]:
        made = self._by_processes() if self.processes else self._by_threads()
        try:
            for _ in range(len(self.sampler)):
                start = time.perf_counter()
                batch = self._finish(*next(made))
                self.waited += time.perf_counter() - start
                yield batch
                load_kernels()  # not earlier: it must not delay the first step
        finally:
            made.close()

    def _by_threads(self) -> Generator[tuple[DrawnBatch, Slot]]:
        """Each mini-batch, once all its rows are made. Its slot is written again only after the next one is taken."""
        count = len(self.sampler.share)
        parts = _slices(count, ROWS if self.maker.cache is None else CACHED_ROWS)
        ahead = max(self.workers + 1, AHEAD * len(parts))
        draws = prefetch_items(self.images, self.sampler, self.maker.find_unread, ahead=AHEAD)
        ring = Ring(AHEAD + 2 + self.workers // len(parts), count, self.data, self.device)
        tasks = (
            Task(batch, rows, ring[number])
            for number, batch in enumerate(map(self.maker.draw, draws))
            for rows in parts
        )
        done = in_order(self.maker.make, tasks, workers=self.workers, ahead=ahead)
        try:
            for _ in range(len(self.sampler)):
                made = [next(done) for _ in parts]
                yield made[0].batch, made[0].slot
        finally:
            done.close()

    def _by_processes(self) -> Generator[tuple[DrawnBatch, Slot]]:
        made = in_processes(
            self._start_worker, self.sampler.steps, workers=self.workers, pinned=self.device.type == "cuda",
            on_crash=self._add_crashing,
        )  # fmt: skip
        for drawn, (crops, ids, bad, error, outage) in zip(self.sampler, made, strict=True):
            for name, reason in bad.items():
                self.quarantine.add(name, reason)
            if error:
                raise (StoreError if outage else DataError)(error)
            yield self.maker.draw(drawn), Slot(crops, ids, self.device)

    def _add_crashing(self, index: int) -> None:
        """Exclude an image that crashed the processes that read it."""
        if self.maker.dealt:
            check_bad_on_all_ranks(BadImage(self.images.names[index], CRASH))
        self.crashing.add(index)
        self.quarantine.add(self.images.names[index], CRASH)

    def _shrunk(self, images: Images) -> Images:
        """`images`, shrunk as `data` says."""
        memory = 0 if self.processes else SHRUNK_MEMORY
        if self.data.shrink is None:
            return images
        return ShrunkImages(images, self.data.shrink, memory=memory, scaled=self.data.decode == "scaled")

    def _start_worker(self) -> Callable[[int, Callable[[int], None]], WorkerBatch]:
        """Called once in each worker process. Returns what makes the mini-batch of a step there."""
        return partial(self._make_in_worker, self._shrunk(for_process(self.images)))

    def _make_in_worker(self, images: Images, step: int, before_read: Callable[[int], None]) -> WorkerBatch:
        """The mini-batch of a step, from this process's copy of the images, with its own list of bad ones."""
        bad = Quarantine(None, len(images), len(images))  # no limit: the main process adds up those of all workers
        maker = replace(self.maker, images=images, quarantine=bad, before_read=before_read)
        for coming in (step, step + self.workers):  # torch deals out the steps in turn
            if coming in self.sampler.steps:
                prefetch(images, self.sampler.draw(coming).ids.tolist())
        batch = maker.draw(self.sampler.draw(step))
        count = len(batch.drawn.ids)
        slot = Slot.empty(count, self.data, torch.device("cpu"))
        try:
            maker.make(Task(batch, slice(0, count), slot), Event())
            failure, outage = "", False
        except DataError as error:  # raised again by the main process, after it has added the bad images
            failure, outage = str(error), isinstance(error, StoreError)
        views, ids = [torch.from_numpy(crops) for crops in slot.crops], torch.from_numpy(slot.ids)
        return WorkerBatch(views, ids, bad.bad, failure, outage)

    def _first_size(self) -> tuple[int, int] | None:
        """(height, width) of the first image that can be read."""
        for index in range(len(self.images)):
            try:
                return self.images.read(index).shape[:2]
            except BadImage as bad:
                self.quarantine.add(bad.name, bad.reason)
        return None

    def _finish(self, batch: DrawnBatch, slot: Slot) -> ViewBatch:
        """The mini-batch on the device. The CPU does not wait for the device."""
        mean, std = self.data.mean, self.data.std
        if self.maker.coloured and self.device.type == "cpu":
            views = [cpu.normalize(crops, mean=mean, std=std, pool=self.pool) for crops in slot.crops]
            return ViewBatch(views, torch.from_numpy(slot.ids.copy()))
        crops, ids = slot.to_device()
        views = [
            normalize(
                one if self.maker.coloured else colour(one, view.look, compiled=self.compiled), mean=mean, std=std
            )
            for one, view in zip(crops, batch.views, strict=True)
        ]
        return ViewBatch(views, ids)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def eval_batches(
    images: Images,
    data: DataSpec,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    quarantine: Quarantine | None = None,
) -> Generator[tuple[Float[Tensor, "N c S S"], Int64[Tensor, " N"]], None, None]:
    """Every image once and in order, cropped as for evaluation, with its index.

    Raises:
        DataError: a bad image. With a `quarantine` it is skipped and listed there, up to the number that is tolerated.
    """

    images = in_bands(images, data)

    def read(some: range, stopped: Event) -> tuple[Tensor, Tensor]:
        crops, ids = [], []
        for index in some:
            if stopped.is_set():
                raise Abandoned
            try:
                crops.append(cpu.eval_crop(images.read(index), data))
                ids.append(index)
            except BadImage as bad:
                if quarantine is None:
                    raise DataError(f"{bad}: {_advice(bad)}") from bad
                quarantine.add(bad.name, bad.reason)
        together = np.stack(crops) if crops else np.zeros((0, data.channels, data.size, data.size), dtype=np.uint8)
        return torch.from_numpy(together), torch.tensor(ids, dtype=torch.int64)

    load_kernels()
    starts = range(0, len(images), batch_size)
    parts = (range(start, min(start + batch_size, len(images))) for start in starts)
    coming = prefetch_items(images, parts, lambda part: part, ahead=max(1, AHEAD_IMAGES // batch_size))
    for crops, ids in in_order(read, coming, workers=workers):
        if len(ids):
            crops = normalize(_to_device(crops, device), mean=data.mean, std=data.std)
            yield crops, _to_device(ids, device)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device; to a GPU through page-locked memory, so that the CPU does not wait."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _advice(bad: BadImage) -> str:
    missing = isinstance(bad.system_error, FileNotFoundError | NotADirectoryError)
    return "check the path" if missing else "repair it, or leave it out"
