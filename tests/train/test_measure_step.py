"""What a step costs on this machine."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from moco import pretrain
from moco.data.sources.folder import find_images
from moco.train import measure_step as measuring
from moco.train.checkpoint import newest_intact, read_checkpoint
from moco.train.measure_step import StepCost, measure_step, peak_memory, reset_peak_memory, sample_of

CPU = torch.device("cpu")


def measured(images, recipe, **options) -> StepCost:
    return measure_step(recipe, images, CPU, **{"workers": 1, "seconds": 0.5} | options)


def test_a_longer_step_is_measured_as_longer(pictures, tiny, monkeypatch):
    images, train = find_images(pictures), measuring.train

    def slow(contrast, state, batches, *, after_step, **options):
        def delayed(*args):
            time.sleep(0.2)
            after_step(*args)

        train(contrast, state, batches, after_step=delayed, **options)

    quick = measured(images, tiny)
    monkeypatch.setattr(measuring, "train", slow)
    delayed = measured(images, tiny, seconds=3)
    assert delayed.seconds >= 0.2
    assert delayed.seconds > quick.seconds
    assert delayed.steps >= 3
    assert delayed.waited < 0.5


def test_waiting_for_views_is_seen(pictures, tiny):
    class Slow:
        def __init__(self, images):
            self.images = images

        def __getattr__(self, name):
            return getattr(self.images, name)

        def __len__(self):
            return len(self.images)

        def read(self, index):
            time.sleep(0.1)
            return np.tile(self.images.read(index), (4, 4, 1))  # too large to be kept in memory

    assert measured(Slow(find_images(pictures)), tiny, seconds=2).waited > 0.5


def test_nothing_is_written_and_the_random_state_of_a_run_is_its_own(pictures, tiny, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = sorted(Path(tmp_path).rglob("*"))
    measured(find_images(pictures), tiny)
    assert sorted(Path(tmp_path).rglob("*")) == before


def test_the_size_of_a_checkpoint_is_that_of_the_file(pictures, tiny, tmp_path):
    folder = pretrain(pictures, tmp_path / "run", recipe=tiny).path / "checkpoints"
    tensors = list(measuring._tensors(read_checkpoint(newest_intact(folder))))
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert measured(find_images(pictures), tiny).disk == pytest.approx(size, rel=0.01)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_peak_memory_starts_again():
    large = np.ones(2**27, dtype=np.uint8)
    first = peak_memory(CPU)
    del large
    reset_peak_memory(CPU)
    second = peak_memory(CPU)
    assert first is not None
    assert second is not None
    assert first - second > 2**26
    again = np.ones(2**27, dtype=np.uint8)
    assert (peak_memory(CPU) or 0) - second > 2**26
    del again


def test_a_sample_is_evenly_spread(pictures):
    images = find_images(pictures)
    assert list(sample_of(images, 4).indices) == [0, 13, 26, 39]
    assert len(sample_of(images, 1000)) == 40
