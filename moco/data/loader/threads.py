"""Work that threads do ahead of its consumer: image decoding and array arithmetic run beside Python, without copies."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Abandoned(Exception):
    """The consumer has gone, and nobody wants the result any more."""


def in_order(
    make: Callable[[Item, Event], Result], items: Iterable[Item], *, workers: int, ahead: int | None = None
) -> Generator[Result]:
    """`make(item, gone)` for each of `items`, in their order.

    Args:
        make: runs in one of the threads. Long work looks at `gone` now and then, and raises Abandoned when it is set:
            the consumer has stopped early.
        workers: number of threads; 0 makes each item when it is asked for, in the consumer's own thread.
        ahead: items that they make beyond the one that is consumed; None: `workers` + 1.

    Raises:
        What `make` raised, when its item is due. However the iteration ends, no thread of it runs afterwards.
    """
    gone, ahead = Event(), workers + 1 if ahead is None else ahead
    if not workers:
        for item in items:
            yield make(item, gone)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="moco-data")
    made: deque[Future[Result]] = deque()
    try:
        for item in items:
            made.append(pool.submit(make, item, gone))
            if len(made) > ahead:
                yield made.popleft().result()
        while made:
            yield made.popleft().result()
    finally:
        gone.set()
        pool.shutdown(wait=True, cancel_futures=True)
