"""Mini-batches of views, made ahead by threads or processes; the same for any number of them and on any start."""

import time
from collections.abc import Callable, Generator, Iterator
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from moco.data.augment import cpu, draw
from moco.data.decode.decode import BadImage
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.buffers import Reused, Ring, Slot
from moco.data.loader.cache import Kept, kept_for
from moco.data.loader.processes import Made, in_processes
from moco.data.loader.sampler import Draw, StepSampler
from moco.data.loader.threads import Abandoned, in_order
from moco.data.sources.images import DataError, Images
from moco.data.sources.torch_dataset import for_process
from moco.recipe import DataSpec
from moco.rng import fold

CRASH = "ends the process that reads it"
TRIES = 100  # images that are asked for in place of a bad one
PIECE = 8  # images that a thread works on at a time, so that all threads work on the mini-batch that is due first
KEPT_PIECE = 128  # the same, of images in memory
AHEAD = 2  # mini-batches that are made ahead: one to hand over, and one for a step that is shorter than most


class Batch(NamedTuple):
    """Two views of each of N images, in float32, and the images' indices, on the device."""

    views: list[Float[Tensor, "N 3 S S"]]
    ids: Int64[Tensor, " N"]


class Plan(NamedTuple):
    """A mini-batch as it was drawn: which images, and their views with all their random numbers."""

    drawn: Draw
    views: list[cpu.Drawn]


class Piece(NamedTuple):
    """Some rows of a mini-batch, which a thread makes and writes into their place."""

    plan: Plan
    rows: slice
    slot: Slot


class ViewLoader:
    """The mini-batches of `steps`, as a function of (images, data, batch_size, seed, step) alone.

    Threads decode, crop and, where the device is the CPU, change the colours of a few images at a time, and write them
    as bytes into a ring of buffers. To another device the bytes are handed over, and colours are changed there.
    Images are decoded once for both views; small ones of one size stay in memory.

    A bad image is skipped, and another takes its place, drawn by (seed, epoch, its index); `ids` hold that one's.

    Args:
        batch_size: over all ranks; iteration gives this rank's share.
        workers: threads that work ahead; 0 makes every mini-batch when it is asked for.
        processes: they are processes (see processes.py).
        compiled: on another device than the CPU, colours are changed by code that torch has compiled.

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
    ):
        self.sampler = StepSampler(
            len(images), batch_size, seed=seed, steps=steps, rank=rank, world_size=world_size
        )  # fmt: skip
        self.images, self.data, self.seed = images, data, seed
        self.workers, self.device, self.quarantine = workers, device, quarantine
        self.on_host = device.type == "cpu"  # all is done there, colours too
        self.processes = processes and workers > 0
        self.forked = False  # whether this is a copy in a worker process, with its own images
        if self.processes:
            for_process(images)  # refuse what cannot be copied before a process is started
        self.kept = None if self.processes else kept_for(images, self._first_size())  # else one copy per process
        self.memory = Reused()
        self.compiled = compiled
        self.deadly: set[int] = set()  # images that ended the process that read them
        self.note: Callable[[int], None] = lambda index: None  # called with each image before it is read
        self.waited = 0.0  # [s] that the consumer has waited for mini-batches so far

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        made = self._by_processes() if self.processes else self._by_threads()
        try:
            for _ in range(len(self.sampler)):
                start = time.perf_counter()
                batch = self._finish(*next(made))
                self.waited += time.perf_counter() - start
                yield batch
                cpu.load()  # only now: it must not hold up the first step
        finally:
            made.close()

    def _by_threads(self) -> Generator[tuple[Plan, Slot]]:
        """Each mini-batch, when all its pieces are made. It stays as it is until the next but one is asked for."""
        count = len(self.sampler.share)
        pieces = _slices(count, PIECE if self.kept is None else KEPT_PIECE)
        ahead = max(self.workers + 1, AHEAD * len(pieces))
        ring = Ring(AHEAD + 2 + self.workers // len(pieces), count, self.data, self.device)
        work = (
            Piece(plan, rows, ring[number])
            for number, plan in enumerate(map(self._plan, self.sampler))
            for rows in pieces
        )
        done = in_order(self._make, work, workers=self.workers, ahead=ahead)
        try:
            for _ in range(len(self.sampler)):
                made = [next(done) for _ in pieces]
                yield made[0].plan, made[0].slot
        finally:
            done.close()

    def _by_processes(self) -> Generator[tuple[Plan, Slot]]:
        made = in_processes(
            self._whole, self.sampler.steps, workers=self.workers, pinned=self.device.type == "cuda",
            deadly=self._crashes,
        )  # fmt: skip
        for drawn, (crops, ids, bad, trouble) in zip(self.sampler, made, strict=True):
            for name, reason in bad.items():
                self.quarantine.add(name, reason)
            if trouble:
                raise DataError(trouble)
            yield self._plan(drawn), Slot(crops, ids, self.device)

    def _crashes(self, index: int) -> None:
        """Set an image aside that ended the processes that read it."""
        self.deadly.add(index)
        self.quarantine.add(self.images.names[index], CRASH)

    def _whole(self, step: int, note: Callable[[int], None]) -> Made:
        """The mini-batch of a step, made in a process of its own."""
        if not self.forked:
            self.images, self.forked = for_process(self.images), True
        self.quarantine, self.note = Quarantine(None, len(self.images), len(self.images)), note
        plan = self._plan(self.sampler.draw(step))
        slot = Slot.empty(len(plan.drawn.ids), self.data, torch.device("cpu"))
        try:
            self._make(Piece(plan, slice(0, len(plan.drawn.ids)), slot), Event())
            trouble = ""
        except DataError as error:  # told by the main process, which knows of more bad images
            trouble = str(error)
        views, ids = [torch.from_numpy(crops) for crops in slot.crops], torch.from_numpy(slot.ids)
        return Made(views, ids, self.quarantine.bad, trouble)

    def _plan(self, drawn: Draw) -> Plan:
        epoch, ids = drawn
        views = range(len(self.data.views))
        numbers = [draw.random_numbers(self.seed, epoch, ids=ids, view_index=index) for index in views]
        return Plan(drawn, [cpu.Drawn(*pair) for pair in zip(self.data.views, numbers, strict=True)])

    def _make(self, piece: Piece, gone: Event) -> Piece:
        """Read the images of a piece, and write their views into its place."""
        plan, rows, slot = piece
        slot.wait()  # until what was in it is on the device
        if self.kept is not None:
            self._write_kept(piece, self.kept, gone)
            return piece
        for row in range(rows.start, rows.stop):
            if gone.is_set():
                raise Abandoned
            slot.ids[row], image = self._read(plan.drawn.epoch, int(plan.drawn.ids[row]))
            cpu.views(image, plan.views, row, slot.crops, coloured=self.on_host)
        return piece

    def _write_kept(self, piece: Piece, kept: Kept, gone: Event) -> None:
        """The same with images that stay in memory: in one call, unless one of them has another size."""
        plan, rows, slot = piece
        ids, images = plan.drawn.ids[rows].copy(), {}
        for place in np.flatnonzero(~kept.here[ids]).tolist():
            if gone.is_set():
                raise Abandoned
            ids[place], images[place] = self._read(plan.drawn.epoch, int(ids[place]))
        slot.ids[rows] = ids
        if kept.here[ids].all():
            cpu.views_of_kept(kept.pixels, ids, plan.views, rows, slot.crops, coloured=self.on_host)
            return
        for place, index in enumerate(ids):
            image = images.get(place, kept.pixels[index])
            cpu.views(image, plan.views, rows.start + place, slot.crops, coloured=self.on_host)

    def _read(self, epoch: int, index: int) -> tuple[int, UInt8[np.ndarray, "H W 3"]]:
        """Image `index`, or the one that takes its place, with its own index."""
        for instead in self._tried(epoch, index):
            self.note(instead)
            try:
                if instead in self.deadly:
                    raise BadImage(self.images.names[instead], CRASH)
                if self.kept is not None:
                    return instead, self.kept.read(instead, self.images.read)
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

    def _first_size(self) -> tuple[int, int] | None:
        """(height, width) of the first image that can be read."""
        for index in range(len(self.images)):
            try:
                return self.images.read(index).shape[:2]
            except BadImage as bad:
                self.quarantine.add(bad.name, bad.reason)
        return None

    def _finish(self, plan: Plan, slot: Slot) -> Batch:
        """The mini-batch on the device. The host does not wait for the device."""
        mean, std = self.data.mean, self.data.std
        if self.on_host:
            views = [cpu.normalize(crops, mean=mean, std=std, memory=self.memory) for crops in slot.crops]
            return Batch(views, torch.from_numpy(slot.ids.copy()))
        crops, ids = slot.hand_over()
        views = [
            draw.normalize(draw.colour(one, view.look, compiled=self.compiled), mean=mean, std=std)
            for one, view in zip(crops, plan.views, strict=True)
        ]
        return Batch(views, ids)


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
) -> Generator[tuple[Float[Tensor, "N 3 S S"], Int64[Tensor, " N"]], None, None]:
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
                crops.append(cpu.eval_crop(images.read(index), data))
                ids.append(index)
            except BadImage as bad:
                if quarantine is None:
                    raise DataError(f"{bad}: {_advice(bad)}") from bad
                quarantine.add(bad.name, bad.reason)
        together = np.stack(crops) if crops else np.zeros((0, 3, data.size, data.size), dtype=np.uint8)
        return torch.from_numpy(together), torch.tensor(ids, dtype=torch.int64)

    cpu.load()
    starts = range(0, len(images), batch_size)
    parts = [range(start, min(start + batch_size, len(images))) for start in starts]
    for crops, ids in in_order(look_at, parts, workers=workers):
        if len(ids):
            crops = draw.normalize(_moved(crops, device), mean=data.mean, std=data.std)
            yield crops, _moved(ids, device)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device; to a GPU through page-locked memory, so that the host need not wait."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _advice(bad: BadImage) -> str:
    missing = isinstance(bad.__cause__, FileNotFoundError | NotADirectoryError)
    return "check the path" if missing else "repair it, or leave it out"
