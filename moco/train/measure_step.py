"""Measure what a recipe costs on this machine: seconds of a step, of reading, and memory, on some of the images."""

import ctypes
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from moco.data.decode.decode import BadImage
from moco.data.loader.bad_images import Quarantine
from moco.data.loader.loader import ViewLoader
from moco.data.loader.shrunk import ShrunkImages
from moco.data.sources.images import Images, Subset
from moco.recipe import Recipe
from moco.train.build import contrast_for, in_format, precision_of, scaler_for, threads
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import Batches, train
from moco.train.optim import optimizer_for

WARM_UP = 3  # steps before the time is taken: the first is slow, and two mini-batches are made ahead
MEASURED = 6  # steps, at least, if the time allows
STEPS = 10_000  # more than are ever measured


@dataclass(frozen=True)
class StepCost:
    """What one step of a recipe costs, views included."""

    seconds: float  # of a step
    waited: float  # the share of it that training waited for views
    steps: int  # that were measured
    memory: int | None  # [bytes] maximum of the process; None: not known on this device
    kept: float  # [bytes] of pixels that stay in memory for each image, in `memory` for the sample only
    disk: int  # [bytes] of a checkpoint


def measure_step(
    recipe: Recipe,
    images: Images,
    place: torch.device,
    *,
    workers: int,
    seconds: float,
    model: nn.Module | None = None,
) -> StepCost:
    """Train for about so many seconds on `images`, a sample, with the run's own code. Writes nothing.

    Images that the run keeps in memory are read before the time is taken. Unreadable ones are left out.
    """
    reset_peak_memory(place)
    quarantine = Quarantine(None, len(images), len(images))
    loader = ViewLoader(
        images, recipe.data, batch_size=recipe.optim.batch_size, seed=recipe.seed, steps=range(STEPS), workers=workers,
        device=place, quarantine=quarantine, compiled=recipe.compute.compile,
    )  # fmt: skip
    kept = fill_memory(loader)
    with threads(recipe.compute.threads):
        contrast = contrast_for(recipe, place, num_images=len(images), model=model, init=None, say=_ignore)
        state = TrainState(
            contrast, optimizer_for(contrast, recipe.optim), Clock(STEPS, STEPS), scaler_for(recipe, place)
        )
        timer = _Timer(loader, place, seconds)
        train(
            contrast, state, in_format(timer.batches(), recipe), lr=recipe.optim.lr, m=recipe.method.momentum,
            seed=recipe.seed, after_step=_ignore, precision=precision_of(recipe, place),
        )  # fmt: skip
    tensors = [*contrast.state_dict().values(), *_tensors(state.optimizer.state_dict())]
    disk = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    peak = peak_memory(place)
    if peak is not None and place.type == "cpu":
        peak += disk  # the copy that a run makes of its state, to write checkpoints beside training
    return StepCost(timer.each, timer.waited / timer.total, timer.steps, peak, kept, disk)


class _Timer:
    """Passes mini-batches on until the time is up, and measures the steps after the first few."""

    def __init__(self, loader: ViewLoader, place: torch.device, seconds: float):
        self.loader, self.place, self.limit = loader, place, seconds
        self.total = self.each = self.waited = 0.0
        self.steps = 0

    def batches(self) -> Batches:
        began = start = time.perf_counter()
        waited = warm_up = 0
        for done, batch in enumerate(self.loader):
            now = self._now()
            elapsed = now - began
            if done == 1 or (done <= WARM_UP and elapsed < self.limit / 2):
                start, waited, warm_up = now, self.loader.waited, done
            elif done > 1:
                self.steps, self.total, self.waited = done - warm_up, now - start, self.loader.waited - waited
                if elapsed > self.limit or (self.steps >= MEASURED and elapsed > self.limit / 2):
                    break
            yield batch
        self.each = self.total / self.steps

    def _now(self) -> float:
        if self.place.type == "cuda":
            torch.cuda.synchronize(self.place)
        return time.perf_counter()


def sample_of(images: Images, count: int) -> Subset:
    """Up to `count` images, evenly spread."""
    return Subset(images, np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)))


def reset_peak_memory(place: torch.device) -> None:
    """Let `peak_memory` start again from what is in use now. Free memory goes back to the system first."""
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
        return
    with suppress(OSError, AttributeError):  # Linux with glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(place: torch.device) -> int | None:
    """The maximum memory of the process [bytes], on the device that trains; None where it is not known."""
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place)
    if place.type != "cpu":
        return None
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fill_memory(loader: ViewLoader) -> float:
    """Read the images that the loader keeps in memory. Returns the bytes that it keeps for each; 0: it keeps none."""
    cache, sizes = loader.maker.cache, []
    if cache is None and not isinstance(loader.images, ShrunkImages):
        return 0.0
    for index in range(len(loader.images)):
        with suppress(BadImage):
            pixels = loader.images.read(index) if cache is None else cache.read(index, loader.images.read)
            sizes.append(pixels.nbytes)
    return float(np.mean(sizes)) if sizes else 0.0


def _tensors(state: object) -> Iterator[Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for one in state.values() if isinstance(state, dict) else state:
            yield from _tensors(one)


def _ignore(*_: object) -> None:
    """A callback that does nothing."""
