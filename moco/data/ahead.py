"""Folders looked through by a process of its own, while this one imports torch: that takes a second or two.

With two cores, 100,000 files then cost the start of a run nothing. The walk itself is `moco.data.folder`'s.
"""

import multiprocessing
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moco.data.folder import Folder

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # that end the command, as in moco.train.slurm


class Ahead:
    """Folders and list files, as they were given. The search begins at once, `find` waits for what it comes to.

    A process is forked only as long as it has no threads, which torch starts: later, and where there is no fork to rely
    on, `find` searches by itself.
    """

    def __init__(self, sources: Sequence[str]):
        self._sources, self._process = list(sources), None
        if sys.platform != "linux" or "torch" in sys.modules:
            return
        fork = multiprocessing.get_context("fork")
        self._result, into = fork.Pipe(duplex=False)
        self._process = fork.Process(target=_search, args=(self._sources, self._result, into), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # one that comes while it forks is not lost
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        into.close()

    def find(self) -> "Folder":
        """What `find_images` gives for them. Raises as it does."""
        from moco.data.folder import find_images

        if self._process is None:
            return find_images(self._sources)
        process, self._process = self._process, None
        with self._result:
            try:
                found = self._result.recv()
            except EOFError:  # it failed, or was ended: what made it fail is seen here
                return find_images(self._sources)
        process.join()
        if isinstance(found, Exception):
            raise found
        return found


def _search(sources: list[str], theirs: Connection, into: Connection) -> None:
    """What the process does: send the folder, or the DataError."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # it has nothing to say
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    theirs.close()  # so that sending fails when nobody waits any more
    from moco.data.folder import DataError, find_images

    try:
        found = find_images(sources)
    except DataError as error:
        found = error
    except Exception:  # nothing is sent, and whoever waits meets it by searching
        return
    with suppress(BrokenPipeError):
        into.send(found)
