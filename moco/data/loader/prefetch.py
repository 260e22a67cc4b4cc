"""Prefetch the images of the next items from a remote store: one read takes long, many at once hardly longer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from moco.data.sources.images import forget, prefetch

Item = TypeVar("Item")


def prefetch_items(
    images: Any, items: Iterable[Item], indices_of: Callable[[Item], Iterable[int]], *, ahead: int
) -> Iterator[Item]:
    """`items` in their order; the images of the next `ahead` items are prefetched.

    Args:
        indices_of: the images of an item that are needed.
    """
    waiting: deque[Item] = deque()
    try:
        for item in items:
            prefetch(images, indices_of(item))
            waiting.append(item)
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    except GeneratorExit:  # the consumer has stopped early
        forget(images)
        raise
