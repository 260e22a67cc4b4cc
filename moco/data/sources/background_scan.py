"""Folders looked through by a process of its own, while this one imports torch: that takes a second or two.

With two cores, 100,000 files then cost the start of a run nothing. The walk itself is `moco.data.sources.folder`'s.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moco.data.sources.folder import Folder

_PR_SET_PDEATHSIG = 1  # prctl(2): the signal that comes when the parent is gone


class Ahead:
    """Folders and list files, as they were given. The search begins at once, `find` waits for what it comes to.

    A process is forked only as long as it has no threads, which torch starts: later, and where there is no fork to rely
    on, `find` searches by itself.
    """

    def __init__(self, sources: Sequence[str]):
        self._sources, self._begun, self._found = list(sources), None, None
        if sys.platform == "linux" and "torch" not in sys.modules:
            with suppress(OSError):  # no more processes are to be had
                self._begun = _begin(self._sources)

    def check(self, seconds: float) -> None:
        """Raise what `find` would raise, if the search fails within `seconds`."""
        if self._begun is not None and self._begun[1].poll(seconds):
            self._receive()
        if isinstance(self._found, Exception):
            raise self._found

    def find(self) -> "Folder":
        """What `find_images` gives for them. Raises as it does."""
        from moco.data.sources.folder import find_images

        self._receive()
        if self._found is None:  # the search failed, or was ended: what made it fail is seen here
            return find_images(self._sources)
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    def _receive(self) -> None:
        """Take the result of the process, once."""
        if self._begun is None:
            return
        (process, result), self._begun = self._begun, None
        with result, suppress(EOFError, OSError):
            self._found = result.recv()
        process.join()


def _begin(sources: list[str]) -> tuple[BaseProcess, Connection]:
    """A process that searches, and where its result arrives."""
    fork = multiprocessing.get_context("fork")
    result, into = fork.Pipe(duplex=False)
    process = fork.Process(target=_search, args=(sources, result, into, os.getpid()), daemon=True)
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, signal.valid_signals()
    )  # one that comes while it forks is not lost
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        into.close()
    return process, result


def _search(sources: list[str], theirs: Connection, into: Connection, command: int) -> None:
    """What the process does: send the folder, or the DataError."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)  # the command answers: this process has nothing to say
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a folder that hangs does not keep it after the command
    if os.getppid() != command:  # which has gone before that
        return
    theirs.close()  # so that sending fails when nobody waits any more
    from moco.data.sources.folder import DataError, find_images

    try:
        found = find_images(sources)
    except DataError as error:
        found = error
    except Exception:  # nothing is sent, and whoever waits meets it by searching
        return
    with suppress(BrokenPipeError):
        into.send(found)
