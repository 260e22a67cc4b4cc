"""Threads that work ahead of their consumer: decoding and array arithmetic release the GIL, and nothing is copied."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
STOP_EVENT: ContextVar[Event | None] = ContextVar(
    "stopped", default=None
)  # of a thread's consumer, for reads that wait


class Abandoned(Exception):
    """Raised by work whose consumer has stopped: the result is not needed."""


def in_order(
    make: Callable[[Item, Event], Result], items: Iterable[Item], *, workers: int, ahead: int | None = None
) -> Generator[Result]:
    """`make(item, stopped)` for each of `items`, in their order.

    Args:
        make: runs in one of the threads. Long work checks `stopped` now and then and raises Abandoned when it is set:
            the consumer has stopped early.
        workers: number of threads; 0 makes each item when it is due, in the consumer's own thread.
        ahead: items that they make beyond the one that is consumed; None: `workers` + 1.

    Raises:
        What `make` raised, when its item is due. However the iteration ends, none of its threads is left running.
    """
    stopped, ahead = Event(), workers + 1 if ahead is None else ahead
    if not workers:
        for item in items:
            yield make(item, stopped)
        return
    pool = ThreadPoolExecutor(workers, "moco-data", initializer=STOP_EVENT.set, initargs=(stopped,))
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(make, item, stopped))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
