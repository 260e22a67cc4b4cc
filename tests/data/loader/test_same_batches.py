"""The mini-batches are the same for any number of workers and ranks and from any first step."""

import threading

import numpy as np
import pytest
import torch

from moco.data.augment import random_parameters
from moco.data.loader.loader import ViewBatch
from moco.data.loader.view_maker import Task, ViewMaker
from tests.data.loader.loading import loader, same


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_makes_the_same_mini_batches(images, workers: int):
    assert same(list(loader(images, workers=workers)), list(loader(images)))


def test_torchs_own_threads_change_no_bit(images):
    one = list(loader(images, batch_size=24, workers=1))
    torch.set_num_threads(2)
    assert same(list(loader(images, batch_size=24)), one)


def test_random_numbers_drawn_by_threads_would_make_the_mini_batches_depend_on_their_number(images, monkeypatch):
    first, make = loader(images).sampler.draw(0).ids, ViewMaker.make

    def made(workers: int) -> list[ViewBatch]:
        rng, overtaken = np.random.default_rng(0), threading.Event()

        def noisy(self: ViewMaker, task: Task, stopped: threading.Event) -> Task:
            later = not np.array_equal(task.batch.drawn.ids, first)
            if workers and not later:
                assert overtaken.wait(60)  # the first mini-batch takes longest
            make(self, task, stopped)
            for crops in task.slot.crops:
                crops[task.rows] ^= rng.integers(256, size=crops[task.rows].shape, dtype=np.uint8)
            if later:
                overtaken.set()
            return task

        monkeypatch.setattr(ViewMaker, "make", noisy)
        return list(loader(images, workers=workers))

    assert same(made(0), made(0))
    assert not same(made(0), made(3))


@pytest.mark.parametrize("start", [1, 3, 5])
def test_random_numbers_of_one_shared_generator_would_make_a_later_start_differ(images, monkeypatch, start: int):
    def made(steps: range) -> list[ViewBatch]:
        rng = np.random.default_rng(0)
        monkeypatch.setattr(
            random_parameters.rng,
            "uniform",
            lambda seed, epoch, ids, slots: rng.random(np.broadcast_shapes(ids.shape, slots.shape)),
        )
        return list(loader(images, steps=steps))

    assert same(made(range(6)), made(range(6)))
    assert not same(made(range(start, 6)), made(range(6))[start:])


@pytest.mark.parametrize("start", [1, 3, 5])
def test_a_start_at_a_later_step_continues_with_the_same_mini_batches(images, start: int):
    assert same(list(loader(images, steps=range(start, 6), workers=2)), list(loader(images))[start:])


def test_the_shares_of_two_ranks_are_the_mini_batch_of_one(images):
    alone = list(loader(images))
    shares = [list(loader(images, rank=rank, world_size=2, workers=rank)) for rank in range(2)]
    joined = [
        ViewBatch([torch.cat(pair) for pair in zip(a.views, b.views, strict=True)], torch.cat([a.ids, b.ids]))
        for a, b in zip(*shares, strict=True)
    ]
    assert same(joined, alone)


def test_another_seed_gives_other_mini_batches(images):
    assert not same(list(loader(images, seed=1)), list(loader(images)))


def test_a_loader_can_be_iterated_again(images):
    made = loader(images, workers=1)
    assert same(list(made), list(made))
    assert len(made) == 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_mini_batches(images):
    ours = [
        ViewBatch([view.cpu() for view in b.views], b.ids.cpu()) for b in loader(images, device=torch.device("cuda"))
    ]
    for a, b in zip(ours, loader(images), strict=True):
        assert torch.equal(a.ids, b.ids)
        for one, other in zip(a.views, b.views, strict=True):
            torch.testing.assert_close(one, other, atol=2 / 255 / 0.22, rtol=0)
