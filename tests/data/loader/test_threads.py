"""Threads work ahead, in order, and end with their consumer."""

import threading
import time

import pytest

from moco.data.loader.threads import Abandoned, in_order
from moco.data.sources.folder import Folder
from tests.data.loader.loading import CountingImages, data_threads, loader


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_an_exception_in_a_thread_is_raised_in_the_consumer(mixed_ones, workers: int, kind: type[BaseException]):
    made = loader(CountingImages(mixed_ones, fails=kind, after=20), workers=workers)
    with pytest.raises(kind, match="out of luck"):
        list(made)
    assert not data_threads()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_consumer_that_stops_early_leaves_no_thread(mixed_ones, workers: int):
    made = iter(loader(mixed_ones, workers=workers, steps=range(10_000)))
    next(made)
    made.close()
    assert not data_threads()


def test_a_consumer_that_stops_does_not_wait_for_whole_mini_batches(mixed_ones):
    counting = CountingImages(mixed_ones)
    made = iter(loader(counting, workers=2, steps=range(10_000), batch_size=24))
    next(made)
    counting.delay = 0.1
    time.sleep(0.15)
    before = len(counting.reads)
    made.close()
    assert len(counting.reads) - before <= 4  # each thread finishes its image; a task has 8


def test_an_exception_of_the_consumer_ends_the_threads(mixed_ones):
    def consume():
        for _ in loader(mixed_ones, workers=2, steps=range(10_000)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert not data_threads()


def test_without_workers_the_consumers_own_thread_makes_the_views(mixed_ones, monkeypatch):
    seen, read = set(), Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, i: (seen.add(threading.current_thread()), read(self, i))[1])
    list(loader(mixed_ones, workers=0))
    assert seen == {threading.current_thread()}


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_work_one_item_more_ahead_than_their_number(workers: int):
    started = []
    made = in_order(lambda item, stopped: started.append(item), range(100), workers=workers)
    for consumed in range(1, 6):
        next(made)
        deadline = time.perf_counter() + 5
        while len(started) < consumed + workers + 1 and time.perf_counter() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(started) == consumed + workers + 1
    made.close()


def test_items_come_in_order_however_long_they_take():
    def work(item: int, stopped: threading.Event) -> int:
        time.sleep(0.01 * (item % 3 == 0))
        return item

    assert list(in_order(work, range(20), workers=4)) == list(range(20))


def test_work_is_stopped_when_the_consumer_stops():
    started, stopped_early = threading.Event(), threading.Event()

    def work(item: int, stopped: threading.Event) -> int:
        if item == 0:
            return item
        started.set()
        stopped.wait(10)
        stopped_early.set()
        raise Abandoned

    made = in_order(work, range(3), workers=1)
    next(made)
    started.wait(10)
    made.close()
    assert stopped_early.is_set()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_time_that_the_consumer_waits_is_counted(mixed_ones, workers: int):
    counting = CountingImages(mixed_ones)
    made = loader(counting, workers=workers, steps=range(2))
    counting.delay = 0.01
    start = time.perf_counter()
    for _ in made:
        pass
    total = time.perf_counter() - start
    assert 2 * 8 * 0.01 < made.waited <= total


def test_the_time_that_the_consumer_works_is_not_counted(small_ones):
    made = loader(small_ones, workers=1, steps=range(3))
    for _ in made:
        time.sleep(0.5)
    assert made.waited < 3 * 0.5
