"""Processes make the same mini-batches; those that die are replaced."""

import multiprocessing
import os
import signal

import pytest

from tests.data.loader.loading import CountingImages, loader, no_limit, same, spoil


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_make_the_same_mini_batches(images, workers: int):
    assert same(list(loader(images, workers=workers, processes=True)), list(loader(images)))


def test_bad_images_that_processes_find_are_replaced_as_in_threads(images, tmp_path):
    names = spoil(images, 3, 11, 20)
    quarantine = no_limit(images, tmp_path / "bad.csv")
    made = list(loader(images, workers=2, processes=True, quarantine=quarantine))
    assert sorted(quarantine.bad) == sorted(names)
    assert same(made, list(loader(images)))


@pytest.mark.faults
def test_processes_that_are_killed_are_replaced_and_nothing_changes(mixed_ones):
    batches = []
    for batch in loader(mixed_ones, workers=2, processes=True, steps=range(12)):
        batches.append(batch)
        if len(batches) in (2, 7):
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    assert same(batches, list(loader(mixed_ones, steps=range(12))))


class CrashingImages(CountingImages):
    """Images of which one crashes the process that reads it."""

    def read(self, index: int):
        if index == 7 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.images.read(index)


@pytest.mark.faults
def test_an_image_that_crashes_its_process_twice_is_excluded(mixed_ones):
    quarantine = no_limit(mixed_ones)
    made = loader(CrashingImages(mixed_ones), workers=2, processes=True, quarantine=quarantine)
    batches = list(made)
    assert quarantine.bad == {mixed_ones.names[7]: "ends the process that reads it"}
    for drawn, batch in zip(made.sampler, batches, strict=True):
        others = drawn.ids != 7
        assert (batch.ids.numpy() == drawn.ids)[others].all()
        assert not (batch.ids == 7).any()


def test_an_exception_in_a_process_is_raised_in_the_consumer(mixed_ones):
    with pytest.raises(OSError, match="out of luck"):
        list(loader(CountingImages(mixed_ones, fails=OSError, after=5), workers=2, processes=True))


def test_a_consumer_that_stops_early_leaves_no_process(mixed_ones):
    made = iter(loader(mixed_ones, workers=2, processes=True, steps=range(1000)))
    next(made)
    made.close()
    assert not multiprocessing.active_children()
