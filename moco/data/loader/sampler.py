"""Which images are in the mini-batch of each step: stateless, for any first step and any number of images."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from moco.data.loader.shard_order import ShardOrder
from moco.rng import fold, permute


class Draw(NamedTuple):
    """A rank's share of a mini-batch: the `ids` of its images, and the `epoch`, which decides their views."""

    epoch: int
    ids: Int64[np.ndarray, " N"]


class StepSampler:
    """The mini-batches of a run as a pure function of (seed, step).

    An epoch goes through the images in a keyed order that is computed place by place, so memory is that of a mini-batch
    even at a billion images; its last, smaller mini-batch is dropped. Iteration gives this rank's share of the
    mini-batch of each of `steps`; the shares of all ranks together are the same mini-batch for any number of ranks.

    Args:
        order: the order of the global mini-batch of a step, before it is divided over the ranks: row order[i] becomes
            row i.
        shards: the numbers of images in the shards, for an epoch's order that reads them mostly one after the other
            (see ShardOrder). None: all orders are equally likely.

    Raises:
        ValueError: a mini-batch that does not divide over the ranks, or is larger than the number of images; shards
            with another number of images.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        steps: range,
        rank: int = 0,
        world_size: int = 1,
        order: Callable[[int], Int64[np.ndarray, " B"]] | None = None,
        shards: Sequence[int] | Int64[np.ndarray, " s"] | None = None,
    ):
        if batch_size % world_size:
            raise ValueError(f"a mini-batch of {batch_size} does not divide over {world_size} ranks: set another size")
        if not 0 < batch_size <= num_images:
            raise ValueError(
                f"{num_images} images do not make one mini-batch of {batch_size}: add images or set a smaller size"
            )
        if shards is not None and int(np.sum(shards)) != num_images:
            raise ValueError(f"expected shards with {num_images} images, got {int(np.sum(shards))} images")
        self.shards = None if shards is None else ShardOrder(shards, seed)
        self.num_images, self.batch_size, self.seed, self.steps = num_images, batch_size, seed, steps
        self.order, share = order, batch_size // world_size
        self.share = range(rank * share, (rank + 1) * share)
        self.steps_per_epoch = num_images // batch_size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Draw]:
        return map(self.draw, self.steps)

    def draw(self, step: int) -> Draw:
        """This rank's share of the mini-batch of `step`."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        rows = np.arange(self.share.start, self.share.stop, dtype=np.int64)
        places = batch * self.batch_size + (rows if self.order is None else self.order(step)[rows])
        if self.shards is not None:
            return Draw(epoch, self.shards.images_at(places, epoch))
        return Draw(epoch, permute(places, self.num_images, fold(self.seed, epoch)))
