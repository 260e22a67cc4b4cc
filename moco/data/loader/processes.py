"""Mini-batches made by processes of torch's DataLoader, for machines with more cores than one process keeps busy.

A worker makes a whole mini-batch and sends its bytes through shared memory. One that dies (killed, out of memory, an
image that crashes its decoder) is replaced, and the mini-batch made again. A few images, which tell how large they
usually are, are read by the main process, which a crash ends.
"""

import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from moco.data.augment import cpu
from moco.data.sources.images import DataError

ATTEMPTS = 5  # deaths in turn without a mini-batch, before it is given up
TWICE = 2  # an image that was being read when a process crashed so often is bad
CRASHES = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGABRT)  # not killed from outside


class Made(NamedTuple):
    """What a worker sends: the views of a mini-batch as bytes, the images' indices, and the bad ones by name."""

    crops: list[Tensor]  # N x S x S x 3 each
    ids: Tensor
    bad: dict[str, str]
    trouble: str = ""  # why there is no mini-batch


class _Steps(Dataset[Made]):
    """The mini-batch of each step, as a data set. `reading` has, for each worker, the image that it is at, or -1."""

    def __init__(self, make: Callable[[int, Callable[[int], None]], Made], reading: Any):
        self.make, self.reading = make, reading

    def __getitem__(self, step: int) -> Made:
        worker = get_worker_info()
        assert worker is not None

        def note(index: int) -> None:
            self.reading[worker.id] = index

        made = self.make(step, note)
        note(-1)
        return made


def in_processes(
    make: Callable[[int, Callable[[int], None]], Made],
    steps: range,
    *,
    workers: int,
    pinned: bool,
    deadly: Callable[[int], None],
) -> Iterator[Made]:
    """`make(step, note)` of each of `steps`, in order, by `workers` processes.

    Args:
        make: in a worker; calls note(index) before it reads an image.
        pinned: in page-locked memory.
        deadly: called with the index of an image that ended the process that read it; it must not be read again.

    Raises:
        DataError: processes die again and again, though no image crashes them. What `make` raised.
    """
    cpu.kernels(wait=True)  # before the fork: no worker compiles, and none is forked from within
    deaths: Counter[int] = Counter()
    failures = 0
    while len(steps):
        reading = multiprocessing.get_context("fork").Array("q", [-1] * workers, lock=False)
        loader = DataLoader(
            _Steps(make, reading), sampler=list(steps), batch_size=None, num_workers=workers, pin_memory=pinned,
            multiprocessing_context="fork",
        )  # fmt: skip
        feed = _started(loader)
        try:
            for made in feed:
                steps, failures = steps[1:], 0
                yield made
        except (RuntimeError, ConnectionError, EOFError) as error:
            if str(error).startswith("Caught"):  # what went wrong in `make`
                raise
            failures += 1
            processes = zip(reading, getattr(feed, "_workers", []), strict=False)
            died = [index for index, process in processes if process.exitcode in CRASHES and index >= 0]
            deaths.update(died)
            for index in {index for index in died if deaths[index] >= TWICE}:
                deadly(index)
                failures = 0
            if failures >= ATTEMPTS:
                raise DataError(
                    f"processes that read images died {failures} times and no mini-batch came ({error}): is there "
                    "memory enough? Take fewer with --workers, or threads"
                ) from error
        finally:
            end = getattr(feed, "_shutdown_workers", None)  # which torch does when nobody holds it any more
            if end is not None:
                end()


def _started(loader: DataLoader[Made]) -> Iterator[Made]:
    """The loader's iterator. A dead worker is noticed when its mini-batch is due, some seconds later.

    torch would tell by a signal handler that raises wherever the main thread is, in the midst of a step too.
    """
    before = signal.getsignal(signal.SIGCHLD)
    feed = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return feed
