"""Make the views of some rows of a mini-batch: read the images, replace bad ones, crop, and change colours."""

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Event
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64

from moco.data.augment import cpu
from moco.data.augment.random_parameters import random_numbers
from moco.data.decode.decode import BadImage
from moco.data.decode.scaled import Scaled, whole
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.buffers import Slot
from moco.data.loader.cache import ImageCache
from moco.data.loader.sampler import Draw
from moco.data.loader.threads import Abandoned
from moco.data.sources.images import DataError, Images, read_scaled
from moco.recipe import DataSpec
from moco.rng import fold
from moco.text import escape

Pixels = TypeVar("Pixels")
CRASH = "ends the process that reads it"  # the reason in the list of bad images
TRIES = 100  # images that are drawn to replace a bad one


class DrawnBatch(NamedTuple):
    """A mini-batch as it was drawn: which images, and their views with all random numbers."""

    drawn: Draw
    views: list[cpu.DrawnView]


class Task(NamedTuple):
    """Some rows of a mini-batch, which one thread makes and writes into `slot`."""

    batch: DrawnBatch
    rows: slice
    slot: Slot


@dataclass
class ViewMaker:
    """Makes views of `images`. Any number of threads may use it.

    A bad image is added to `quarantine`, and another takes its place, drawn by (seed, epoch, its index).
    """

    images: Images
    data: DataSpec
    seed: int
    quarantine: Quarantine
    coloured: bool  # change the colours too; otherwise the views are crops
    cache: ImageCache | None = None
    crashing: Set[int] = frozenset()  # images that crash the process that reads them: they count as bad
    before_read: Callable[[int], None] | None = None  # called with each image's index
    read_ahead: Callable[[Int64[np.ndarray, " N"]], None] | None = None  # called with the images of a mini-batch
    first_view: int = 0  # which view of an image `data.views` begins with
    dealt: bool = False  # other ranks make the other views: an image that not all ranks may be able to read is an error

    @cached_property
    def sizes(self) -> list[int]:
        """[pixels] of each view."""
        return [size for _, size in self.data.all_views]

    def draw(self, drawn: Draw) -> DrawnBatch:
        """The views of the images drawn, with their random numbers."""
        epoch, ids = drawn
        if self.read_ahead is not None:
            self.read_ahead(ids)
        views = [view for view, _ in self.data.all_views]
        bands = len(self.data.bands or ())
        numbers = [
            random_numbers(self.seed, epoch, ids=ids, view_index=index, bands=bands)
            for index in range(self.first_view, self.first_view + len(views))
        ]
        return DrawnBatch(drawn, [cpu.DrawnView(*pair) for pair in zip(views, numbers, strict=True)])

    def find_unread(self, drawn: Draw) -> list[int]:
        """The images drawn that are not in memory."""
        return (drawn.ids if self.cache is None else drawn.ids[~self.cache.filled[drawn.ids]]).tolist()

    def make(self, task: Task, stopped: Event) -> Task:
        """Write the views of the task's rows into its slot."""
        batch, rows, slot = task
        slot.wait()  # until its former content is on the device
        if self.cache is not None:
            self._make_cached(task, self.cache, stopped)
            return task
        for row in range(rows.start, rows.stop):
            if stopped.is_set():
                raise Abandoned
            choose = partial(cpu.divisor_for, drawn=batch.views, row=row, sizes=self.sizes)
            read = partial(read_scaled, self.images, choose=choose) if self.data.decode == "scaled" else self._whole
            slot.ids[row], image = self._read(batch.drawn.epoch, int(batch.drawn.ids[row]), read)
            cpu.views_of_scaled(image, batch.views, row, slot.crops, coloured=self.coloured)
        return task

    def _make_cached(self, task: Task, cache: ImageCache, stopped: Event) -> None:
        """The same with images in memory: in one call, unless one of them has another size."""
        batch, rows, slot = task
        ids, images = batch.drawn.ids[rows].copy(), {}
        read = partial(cache.read, read=self.images.read)
        for place in np.flatnonzero(~cache.filled[ids]).tolist():
            if stopped.is_set():
                raise Abandoned
            ids[place], images[place] = self._read(batch.drawn.epoch, int(ids[place]), read)
        slot.ids[rows] = ids
        if cache.filled[ids].all():
            cpu.views_of_cached(cache.pixels, ids, batch.views, rows, slot.crops, coloured=self.coloured)
            return
        for place, index in enumerate(ids):
            image = images.get(place, cache.pixels[index])
            cpu.write_views(image, batch.views, rows.start + place, slot.crops, coloured=self.coloured)

    def _whole(self, index: int) -> Scaled:
        return whole(self.images.read(index))

    def _read(self, epoch: int, index: int, read: Callable[[int], Pixels]) -> tuple[int, Pixels]:
        """Image `index` by `read`, or the one that replaces it, with its own index."""
        for candidate in self._candidates(epoch, index):
            if self.before_read is not None:
                self.before_read(candidate)
            try:
                if candidate in self.crashing:
                    raise BadImage(self.images.names[candidate], CRASH)
                return candidate, read(candidate)
            except BadImage as bad:
                if self.dealt:
                    check_bad_on_all_ranks(bad)
                self.quarantine.add(bad.name, bad.reason)
        raise AssertionError("_candidates raises before it ends")

    def _candidates(self, epoch: int, index: int) -> Iterator[int]:
        """`index`, then those that may replace it, in turn. Raises DataError when all of them were tried."""
        yield index
        for attempt in range(TRIES):
            yield fold(self.seed, epoch, index, attempt) % len(self.images)
        name, reason = list(self.quarantine.bad.items())[-1]
        raise DataError(f"{TRIES} images drawn to replace a bad one are all bad, the last one {escape(name)}: {reason}")


def check_bad_on_all_ranks(bad: BadImage) -> None:
    """Raise DataError unless the image's content is bad, so that each rank replaces it by the same image."""
    if bad.reason == CRASH or bad.system_error is not None:
        raise DataError(
            f"{bad}. With compute.deal_keys another rank makes the other view of this image, and may be able to read "
            "it: the views would be of two images. Repair the image or leave it out, or set compute.deal_keys=false"
        ) from bad
