"""Results of a function for many items, by forked processes where a fork is safe."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TypeVar

from moco.data.sources.file_status import cores, die_with, fork_is_safe

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_forks(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function(item)` for each of `items`, in their order. What a process fails to send is computed here.

    Raises:
        What `function` raises.
    """
    count = min(cores(), len(items)) if fork_is_safe() else 1
    if count < 2:
        yield from map(function, items)
        return
    started: list[tuple[int, Connection]] = []
    try:
        for place in range(count):
            started.append(_start(function, items[place::count], [end for _, end in started]))
        for place, item in enumerate(items):
            process, results = started[place % count]
            found: tuple[Result] | Exception | None = None
            with suppress(EOFError, OSError):
                found = results.recv() if process else None
            if isinstance(found, Exception):
                raise found
            yield function(item) if found is None else found[0]
    finally:
        for process, results in started:
            results.close()
            if process:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)  # if it is not done, nobody needs the rest
                os.waitpid(process, 0)


def _start(
    function: Callable[[Item], Result], items: Sequence[Item], others: list[Connection]
) -> tuple[int, Connection]:
    """A process that sends the results of `items`, and the pipe that they come through. 0: none can be started."""
    results, sender = Pipe(duplex=False)
    parent = os.getpid()
    try:
        process = os.fork()
    except OSError:
        sender.close()
        return 0, results
    if process:
        sender.close()
        return process, results
    try:
        die_with(parent)
        for end in (*others, results):
            end.close()
        for item in items:
            try:
                sender.send((function(item),))
            except Exception as error:
                sender.send(error)
    finally:
        os._exit(0)
