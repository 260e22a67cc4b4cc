"""Mini-batches made by processes of torch's DataLoader, for machines with more cores than one process can use.

A worker makes a whole mini-batch and sends its bytes through shared memory. A worker that dies (killed, out of memory,
an image that crashes its decoder) is replaced, and its mini-batch is made again. The main process itself reads a few
images, to learn their usual size; a crash there ends the run.
"""

import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from moco.data.augment.kernel_loading import kernels
from moco.data.sources.images import DataError

MAX_FAILURES = 5  # failures in a row, without a mini-batch, that end the run
MAX_CRASHES = 2  # an image is bad when this many processes crashed while they read it
CRASHES = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGABRT)  # not killed from outside
NO_IMAGE = -1


class WorkerBatch(NamedTuple):
    """What a worker sends: the views of a mini-batch as bytes, the images' indices, and the bad ones by name."""

    crops: list[Tensor]  # N x S x S x 3 each
    ids: Tensor
    bad: dict[str, str]
    error: str = ""  # why there is no mini-batch
    outage: bool = False  # it is a StoreError


Make = Callable[[int, Callable[[int], None]], WorkerBatch]  # of (step, before_read)


class _Steps(Dataset[WorkerBatch]):
    """The mini-batch of each step, as a data set. `reading` holds the image that each worker reads, or NO_IMAGE."""

    def __init__(self, start_worker: Callable[[], Make], reading: Any):
        self.start_worker, self.reading = start_worker, reading
        self.make: Make | None = None  # set in each worker, by `_start`

    def __getitem__(self, step: int) -> WorkerBatch:
        worker = get_worker_info()
        assert worker is not None
        assert self.make is not None

        def before_read(index: int) -> None:
            self.reading[worker.id] = index

        made = self.make(step, before_read)
        self.reading[worker.id] = NO_IMAGE
        return made


def _start(worker_id: int) -> None:
    """Run first in each worker: the data set that is set up here is this worker's own."""
    worker = get_worker_info()
    assert worker is not None
    steps: Any = worker.dataset
    steps.make = steps.start_worker()


class _Deaths:
    """Counts the workers that died since the last mini-batch, and the crashes by image.

    `on_crash` is called with each image that MAX_CRASHES workers were reading when they crashed.
    """

    def __init__(self, on_crash: Callable[[int], None]):
        self.on_crash, self.failures = on_crash, 0
        self._crashes: Counter[int] = Counter()

    def add(self, crashed: Sequence[int], error: Exception) -> None:
        """Count a failure, in which workers `crashed` while they read these images. Raises DataError for too many."""
        self.failures += 1
        self._crashes.update(crashed)
        for index in {index for index in crashed if self._crashes[index] >= MAX_CRASHES}:
            self.on_crash(index)
            self.failures = 0
        if self.failures >= MAX_FAILURES:
            raise DataError(
                f"processes that read images died {self.failures} times in a row, and no mini-batch came ({error}). Is "
                "there enough memory? Take fewer with --workers, or threads in place of processes"
            ) from error


def in_processes(
    start_worker: Callable[[], Make],
    steps: range,
    *,
    workers: int,
    pinned: bool,
    on_crash: Callable[[int], None],
) -> Iterator[WorkerBatch]:
    """The mini-batch of each of `steps`, in order, made by `workers` processes.

    Args:
        start_worker: called once in each worker; returns make(step, before_read), which calls before_read(index)
            before it reads an image.
        pinned: in page-locked memory.
        on_crash: called with the index of an image that crashed the processes that read it; a worker started later
            must not read it.

    Raises:
        DataError: processes die again and again, though no image crashes them. What `make` raised.
    """
    kernels(wait=True)  # before the fork: no worker compiles them or starts a process
    deaths = _Deaths(on_crash)
    while len(steps):
        reading = multiprocessing.get_context("fork").Array("q", [NO_IMAGE] * workers, lock=False)
        loader = DataLoader(
            _Steps(start_worker, reading), sampler=steps, batch_size=None, num_workers=workers, pin_memory=pinned,
            multiprocessing_context="fork", worker_init_fn=_start,
        )  # fmt: skip
        feed = _started(loader)
        try:
            for made in feed:
                steps, deaths.failures = steps[1:], 0
                yield made
        except (RuntimeError, ConnectionError, EOFError) as error:
            if str(error).startswith("Caught"):  # raised in a worker, which torch says so; the worker did not die
                raise
            deaths.add(_crashed(feed, reading), error)
        finally:
            end = getattr(feed, "_shutdown_workers", None)  # torch itself calls it only when `feed` is deleted
            if end is not None:
                end()


def _crashed(feed: Any, reading: Any) -> list[int]:
    """The images that workers were reading when they crashed."""
    processes = zip(reading, getattr(feed, "_workers", []), strict=False)
    return [index for index, process in processes if process.exitcode in CRASHES and index != NO_IMAGE]


def _started(loader: DataLoader[WorkerBatch]) -> Iterator[WorkerBatch]:
    """The loader's iterator, without torch's handler of SIGCHLD, which raises wherever the main thread is.

    A dead worker is noticed some seconds later, when its mini-batch is due.
    """
    before = signal.getsignal(signal.SIGCHLD)
    feed = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return feed
