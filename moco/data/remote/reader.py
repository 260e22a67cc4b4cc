"""Read parts of objects: prefetched ones, those in the cache, and others from the store."""

import os
import threading
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from moco.data.loader.threads import STOP_EVENT, Abandoned
from moco.data.remote.cache import DiskCache
from moco.data.remote.settings import read_settings
from moco.data.remote.store import SIZE_UNKNOWN, ByteRange, Store
from moco.data.remote.urls import scheme_of

REMOTE_READERS = 32  # threads that read ahead: with 20 ms to an answer, up to 1,600 parts a second
MOST = 1024  # parts that are read, and not yet used
STALE = 1024  # calls of `want` after which a part counts as not needed
MEMORY = 2**28  # [bytes] of them
CHECKED = 0.5  # [s] between two looks at whether the consumer of a part has stopped
GUESS = 2**18  # [bytes] of a part whose size is not known


class Reader:
    """Reads the objects of one scheme. Threads may share it; a forked process has its own connections."""

    def __init__(self, scheme: str):
        settings = read_settings()
        self.store = Store(scheme, patience=settings.patience)
        self.cache = DiskCache(settings.cache, settings.cache_size) if settings.cache_size else None
        self._ahead: tuple[int, _Ahead] | None = None  # id of a process, and what it reads ahead

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ahead": None}

    def read(self, part: ByteRange) -> bytes:
        """The bytes of `part`. Raises as `Store.read`."""
        return self._of_process().take(part)

    def prefetch(self, parts: Iterable[ByteRange]) -> None:
        """Start to read `parts`, which will be asked for in about this order."""
        self._of_process().want(parts)

    def forget(self) -> None:
        """Drop what was read ahead: its consumer has ended."""
        if self._ahead is not None and self._ahead[0] == os.getpid():
            self._ahead[1].drop()
        self._ahead = None

    def fetch(self, part: ByteRange) -> bytes:
        """As `read`, from the cache or the store."""
        if self.cache is not None and (known := self.cache.get(part)) is not None:
            return known
        content = self.store.read(part)
        if self.cache is not None:
            self.cache.put(part, content)
        return content

    def _of_process(self) -> "_Ahead":
        if self._ahead is None or self._ahead[0] != os.getpid():
            self._ahead = os.getpid(), _Ahead(self)
        return self._ahead[1]


class _Ahead:
    """The parts that a process reads ahead."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.lock = threading.Lock()
        self.dropped = threading.Event()
        self.pool: ThreadPoolExecutor | None = None
        self.calls = 0  # of `want`
        self.wanted: dict[ByteRange, int] = {}  # in their order, with the number of the call
        self.reading: dict[ByteRange, tuple[int, Future[bytes]]] = {}
        self.size = 0  # [bytes] of those in `reading`

    def want(self, parts: Iterable[ByteRange]) -> None:
        with self.lock:
            self.calls += 1
            self.wanted |= dict.fromkeys(parts, self.calls)
            for part, (call, future) in list(self.reading.items())[: len(self.reading) - MOST // 2]:
                if call < self.calls - STALE and future.done():
                    self._pop(part)
            self._start()

    def take(self, part: ByteRange) -> bytes:
        with self.lock:
            future = self._pop(part) if part in self.reading else None
            self.wanted.pop(part, None)
            self._start()
        while future is not None:
            try:
                return future.result(CHECKED)
            except TimeoutError:
                if (stopped := STOP_EVENT.get()) is not None and stopped.is_set():
                    raise Abandoned from None
            except (Abandoned, CancelledError):  # another consumer of the same images has ended
                break
        return self.reader.fetch(part)

    def _pop(self, part: ByteRange) -> Future[bytes]:
        self.size -= _size(part)
        return self.reading.pop(part)[1]

    def drop(self) -> None:
        """End the threads. A read that waits for the store ends soon."""
        self.dropped.set()
        with self.lock:
            self.wanted.clear()
            self.reading.clear()
            if self.pool is not None:
                self.pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        """Start reads, as many as may be read ahead. Called with the lock."""
        while self.wanted and len(self.reading) < MOST and not self.dropped.is_set():
            part = next(iter(self.wanted))
            if self.size + _size(part) > MEMORY and self.reading:
                return
            call = self.wanted.pop(part)
            if part in self.reading:
                continue
            if self.pool is None:
                self.pool = ThreadPoolExecutor(
                    REMOTE_READERS, "moco-remote", initializer=STOP_EVENT.set, initargs=(self.dropped,)
                )  # fmt: skip
            self.reading[part] = call, self.pool.submit(self.reader.fetch, part)
            self.size += _size(part)


def _size(part: ByteRange) -> int:
    return GUESS if part.size == SIZE_UNKNOWN else part.size


def reader_of(url: str) -> Reader:
    """A reader for objects with the scheme of `url`."""
    return Reader(scheme_of(url))
