"""Search folders for images in a separate process, while the main process imports torch, which takes a second or two.

With two cores, 100,000 files then add nothing to the start of a run. `moco.data.sources.open` does the search itself.
Columns (names, sizes, times) come through shared memory, so a million images are not copied.
"""

import mmap
import multiprocessing
import os
import pickle
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, NamedTuple

from moco.data.sources.file_status import die_with, fork_is_safe

if TYPE_CHECKING:
    from moco.data.sources.images import Images

_ALIGNED = 64  # [bytes] a column starts at a multiple of it


class _Search(NamedTuple):
    """A process that searches, and the pipe its result comes through."""

    process: BaseProcess
    result: Connection
    columns: int  # the descriptor of the shared memory


class BackgroundScan:
    """A search for the images of `sources`, as given on the command line. It starts at once; `find` waits for it.

    Forking is safe only while the process has no other threads, and torch starts some. Once torch is imported, or
    where there is no safe fork (macOS, Windows), there is no background process and `find` searches.
    """

    def __init__(self, sources: Sequence[str]):
        self._sources = list(sources)
        self._search: _Search | None = None
        self._found: Images | Exception | None = None
        if fork_is_safe():
            with suppress(OSError):  # no further process may be started
                self._search = _start(self._sources)

    def check(self, seconds: float) -> None:
        """Raise what `find` would raise, if the search fails within `seconds`."""
        if self._search is not None and self._search.result.poll(seconds):
            self._receive()
        if isinstance(self._found, Exception):
            raise self._found

    @property
    def found(self) -> "Images | None":
        """The images, if the search has ended and `check` or `find` has taken them."""
        return None if isinstance(self._found, Exception) else self._found

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
        (process, result, columns), self._search = self._search, None
        with result, suppress(EOFError, OSError):
            content, sizes = result.recv()
            self._found = _unpacked(content, sizes, columns)
        os.close(columns)
        process.join()


def _start(sources: list[str]) -> _Search:
    fork = multiprocessing.get_context("fork")
    columns = os.memfd_create("moco-images", os.MFD_CLOEXEC)
    result, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send_images, args=(sources, result, sender, columns, os.getpid()), daemon=True)
    # signals are blocked during the fork, so that none is lost
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        process.start()
    except OSError:
        os.close(columns)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()
    return _Search(process, result, columns)


def _send_images(sources: list[str], result: Connection, sender: Connection, columns: int, parent: int) -> None:
    """Run in the process: send the images, or the DataError."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)  # the main process handles signals; here they just end the process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    die_with(parent)  # a read that hangs must not outlive the command
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
        sender.send(_packed(found, columns))


def _packed(found: Any, columns: int) -> tuple[bytes, list[int]]:
    """`found` by pickle without its arrays, which are written to `columns`, and their sizes [bytes]."""
    arrays: list[pickle.PickleBuffer] = []
    content = pickle.dumps(found, protocol=5, buffer_callback=arrays.append)
    sizes, place = [], 0
    for raw in (array.raw() for array in arrays):
        for start in range(0, raw.nbytes, 2**30):  # a write takes less than 2 GiB
            os.pwrite(columns, raw[start : start + 2**30], place + start)
        sizes.append(raw.nbytes)
        place += -(-raw.nbytes // _ALIGNED) * _ALIGNED
    os.ftruncate(columns, place)
    return content, sizes


def _unpacked(content: bytes, sizes: list[int], columns: int) -> Any:
    """The inverse of `_packed`. The arrays are mapped: their memory is shared until they are written to."""
    length = os.fstat(columns).st_size
    memory = memoryview(mmap.mmap(columns, length, access=mmap.ACCESS_COPY) if length else b"")
    arrays, place = [], 0
    for size in sizes:
        arrays.append(memory[place : place + size])
        place += -(-size // _ALIGNED) * _ALIGNED
    return pickle.loads(content, buffers=arrays)
