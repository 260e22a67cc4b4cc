"""An order of the images of shards in which reads are mostly sequential: shards in random order, and windows in them.

    order     the shards of an epoch in random order, in groups of about OPEN shards
    windows   WINDOW images that follow each other in the shards of a group; those of a group in random order

So a mini-batch of 256 has 16 windows from up to OPEN shards, and a group is read to its end before the next one
starts. It is a function of (seed, epoch): nothing is stored but the numbers of images in the shards.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from moco.rng import fold, permute

WINDOW = 16  # images: 1.8 MB of ImageNet, so a disk with a seek of 8 ms reads at 60 % of its speed, not at 8 %
OPEN = 32  # shards that mini-batches are mixed from; what a cache of whole shards has to hold


class _Epoch(NamedTuple):
    """The shards of an epoch in their order."""

    number: int
    shards: Int64[np.ndarray, " s"]
    ends: Int64[np.ndarray, " s"]  # in the order: [images] up to the end of each shard
    groups: Int64[np.ndarray, " g"]  # in the order: [images] up to the end of each group


class ShardOrder:
    """Which image is at each place of an epoch's order, a permutation of all images.

    Memory is that of a few numbers for each shard.

    Args:
        counts: the number of images in each shard. Images are numbered shard by shard.
        seed: of the run.
    """

    def __init__(self, counts: Sequence[int] | Int64[np.ndarray, " s"], seed: int):
        self.counts, self.seed = np.asarray(counts, dtype=np.int64), seed
        self.first = np.cumsum(self.counts) - self.counts  # the number of each shard's first image
        self._epoch: _Epoch | None = None

    def images_at(self, places: Int64[np.ndarray, " N"], epoch: int) -> Int64[np.ndarray, " N"]:
        """The images at `places` of the order of `epoch`."""
        there = self._shards_of(epoch)
        position = np.empty_like(places)  # of each image, if shards and windows were read one after the other
        of_group = np.searchsorted(there.groups, places, side="right")
        for group in np.unique(of_group).tolist():
            start = int(there.groups[group - 1]) if group else 0
            rows = of_group == group
            key = fold(self.seed, epoch, group, 1)
            position[rows] = start + _in_windows(places[rows] - start, int(there.groups[group]) - start, key)
        shard = np.searchsorted(there.ends, position, side="right")
        number = there.shards[shard]
        return self.first[number] + position - (there.ends[shard] - self.counts[number])

    def _shards_of(self, epoch: int) -> _Epoch:
        known = self._epoch
        if known is None or known.number != epoch:
            count = len(self.counts)
            shards = permute(np.arange(count), count, fold(self.seed, epoch, 0))
            ends, groups = np.cumsum(self.counts[shards]), -(-count // OPEN)
            last = np.arange(1, groups + 1) * count // groups - 1  # the last shard of each group
            known = self._epoch = _Epoch(epoch, shards, ends, ends[last])  # at once: another thread may be looking
        return known


def _in_windows(places: Int64[np.ndarray, " N"], count: int, key: int) -> Int64[np.ndarray, " N"]:
    """`places` of [0, count), moved with their windows. The windows begin elsewhere for another `key`."""
    whole = count // WINDOW
    if not whole:
        return places
    windows, inside = np.divmod(places, WINDOW)
    moves = windows < whole  # what is left after the last whole window stays
    moved = windows.copy()
    moved[moves] = permute(windows[moves], whole, key)
    return (moved * WINDOW + inside + fold(key) % count) % count
