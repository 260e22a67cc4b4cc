"""The base class of the loaders of transfer tasks: worker threads prefetch mini-batches in the order of the steps."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import Event
from typing import Protocol

from moco.data.loader.sampler import Draw, StepSampler
from moco.data.loader.threads import in_order
from moco.distributed import rank, world_size
from moco.transfer.recipe import TransferRecipe
from moco.transfer.task_interface import AnnotatedBatch


class Sampler(Protocol):
    """This rank's share of the mini-batch of each step."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Draw]: ...


class StepLoader(ABC):
    """The mini-batches of `steps`. (seed, step) determine which of the `num_images` images each has.

    Raises:
        ValueError: see StepSampler. While iterating: what `make` raises.
    """

    def __init__(self, num_images: int, recipe: TransferRecipe, *, steps: range, workers: int) -> None:
        self.workers = workers
        self.plain = StepSampler(
            num_images, recipe.optim.batch_size, seed=recipe.seed, steps=steps, rank=rank(), world_size=world_size()
        )
        self.sampler: Sampler = self.plain
        self.waited = 0.0  # [s] that the consumer has waited for mini-batches so far

    @abstractmethod
    def make(self, drawn: Draw, stopped: Event) -> AnnotatedBatch:
        """This rank's share of a mini-batch, a function of `drawn` alone. Called in a thread."""

    def __iter__(self) -> Iterator[AnnotatedBatch]:
        made = in_order(self.make, self.sampler, workers=self.workers)
        try:
            for _ in range(len(self.sampler)):
                start = time.perf_counter()
                batch = next(made)
                self.waited += time.perf_counter() - start
                yield batch
        finally:
            made.close()
