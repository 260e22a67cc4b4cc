"""Shuffling BN by the loader: each rank makes the views of the keys that it encodes, so no rank sends images.

Shuffling BN (Sec. 3.3) encodes the key of an image on another rank than its query. The reference way sends the key's
view there. But views are a function of (seed, epoch, image), and every rank knows the order of the shuffle, so the
other rank can make the same view itself. The price: an image is read on two ranks, once for each of its views.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from moco.data.loader.loader import ViewBatch, ViewLoader
from moco.data.sources.images import Images
from moco.recipe import DataSpec


class DealtLoader:
    """Mini-batches like those of a `ViewLoader` whose keys' views are shuffled over the ranks already.

    Rows of the first view belong to `ids`, as ever; row i of this rank's second view belongs to row order[i] of the
    global mini-batch. A `Contrast` with `dealt=True` expects them so.

    Args:
        order: the order of Shuffling BN in a step.
        workers: threads or processes; half of them make the views of the queries, half those of the keys.
        settings: see ViewLoader.

    Raises:
        DataError: in addition to ViewLoader's, an image that another rank may be able to read.
    """

    def __init__(
        self,
        images: Images,
        data: DataSpec,
        *,
        order: Callable[[int], Int64[np.ndarray, " B"]],
        workers: int,
        **settings: Any,
    ):
        first, second = data.views
        of_queries, of_keys = (data.model_copy(update={"views": (view,)}) for view in (first, second))
        settings |= {"dealt": True}
        self._queries = ViewLoader(images, of_queries, workers=workers - workers // 2, **settings)
        self._keys = ViewLoader(images, of_keys, workers=workers // 2, first_view=1, order=order, **settings)
        self.quarantine = self._queries.quarantine

    @property
    def waited(self) -> float:
        """[s] that the consumer has waited for mini-batches so far."""
        return self._queries.waited + self._keys.waited

    def __len__(self) -> int:
        return len(self._queries)

    def __iter__(self) -> Iterator[ViewBatch]:
        for query, key in zip(self._queries, self._keys, strict=True):
            yield ViewBatch([*query.views, *key.views], query.ids)
