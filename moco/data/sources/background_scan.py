"""Search folders for images in a separate process, while the main process imports torch, which takes a second or two.

With two cores, 100,000 files then add nothing to the start of a run. `moco.data.sources.open` does the search itself.
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
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from moco.data.sources.images import Images

_PR_SET_PDEATHSIG = 1  # prctl(2): which signal a process gets when its parent dies


class _Search(NamedTuple):
    """A process that searches, and the pipe its result comes through."""

    process: BaseProcess
    result: Connection


class BackgroundScan:
    """A search for the images of `sources`, as given on the command line. It starts at once; `find` waits for it.

    Forking is safe only while the process has no other threads, and torch starts some. Once torch is imported, or
    where there is no safe fork (macOS, Windows), there is no background process and `find` searches.
    """

    def __init__(self, sources: Sequence[str]):
        self._sources = list(sources)
        self._search: _Search | None = None
        self._found: Images | Exception | None = None
        if sys.platform == "linux" and "torch" not in sys.modules:
            with suppress(OSError):  # no further process may be started
                self._search = _start(self._sources)

    def check(self, seconds: float) -> None:
        """Raise what `find` would raise, if the search fails within `seconds`."""
        if self._search is not None and self._search.result.poll(seconds):
            self._receive()
        if isinstance(self._found, Exception):
            raise self._found

    def find(self) -> "Images":
        """The images. Raises what `open_images` raises."""
        from moco.data.sources.open import open_images

        self._receive()
        if self._found is None:  # no process, or it was killed or failed: search here, where an error can be seen
            return open_images(self._sources)
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    def _receive(self) -> None:
        """Take the result of the process, once."""
        if self._search is None:
            return
        (process, result), self._search = self._search, None
        with result, suppress(EOFError, OSError):
            self._found = result.recv()
        process.join()


def _start(sources: list[str]) -> _Search:
    fork = multiprocessing.get_context("fork")
    result, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send_images, args=(sources, result, sender, os.getpid()), daemon=True)
    # signals are blocked during the fork, so that none is lost
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()
    return _Search(process, result)


def _send_images(sources: list[str], result: Connection, sender: Connection, parent: int) -> None:
    """Run in the process: send the images, or the DataError."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)  # the main process handles signals; here they just end the process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a read that hangs must not outlive the command
    if os.getppid() != parent:  # the parent died before prctl
        return
    result.close()  # so that sending fails once the parent no longer receives
    from moco.data.sources.images import DataError
    from moco.data.sources.open import open_images

    try:
        found = open_images(sources)
    except DataError as error:
        found = error
    except Exception:  # send nothing: `find` then searches in the main process and raises it there
        return
    with suppress(BrokenPipeError):
        sender.send(found)
