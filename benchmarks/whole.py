"""A run as it is: what saving and watching add to a step, and whether reading images and training get along."""

import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import step
from benchmarks.measure import Result, Row, compare, result
from benchmarks.pictures import jpegs
from moco import recipes
from moco.data.augment import cpu
from moco.data.loader import loader
from moco.data.sources.demo import demo_data
from moco.data.sources.folder import find_images
from moco.device import workers_for
from moco.recipe import Recipe
from moco.train import checkpoint, pretrain
from moco.train.after_step import Stopped, Watch
from moco.train.checkpoint import TrainState
from moco.train.nan_guard import Gate
from moco.train.options import RunOptions
from moco.train.plan_run import Job, clock_of
from moco.train.run_folder import RunFolder

FIRST, LAST = 8, 40  # steps of a run between which the clocks are read: its beginning is left out
MINUTE = 60.0  # [s] between two checkpoints
RUNS = 3  # at most: each has many steps
SQUARES = ((224, 224),)  # [pixels] of the photos that a run reads
DEPTHS = (1, 2, 4, 8)  # mini-batches made ahead


@dataclass
class Clocks:
    """What a run's steps took."""

    cpu: list[float] = field(default_factory=list)  # [s] of the process, after each step
    wall: list[float] = field(default_factory=list)
    watching: list[float] = field(default_factory=list)  # [CPU s] of the main thread, between two steps
    saving: list[float] = field(default_factory=list)  # [CPU s] of the main thread, of each checkpoint
    gating: list[float] = field(default_factory=list)  # [CPU s] of the main thread, in the NaN gate, of each step

    def between(self, clock: list[float]) -> float:
        """Seconds a step."""
        return (clock[LAST - 1] - clock[FIRST - 1]) / (LAST - FIRST)


def run(recipe: Recipe, folder: Path) -> Clocks:
    """`moco.pretrain` on a folder, stopped as by a signal after some steps."""
    clocks = Clocks()
    cpu.kernels(wait=True)

    class Timed(Watch):
        def __call__(self, state: TrainState, metrics: dict[str, Any]) -> None:
            clocks.cpu.append(time.process_time())
            clocks.wall.append(time.perf_counter())
            if state.clock.step == LAST:
                self.stop.number = signal.SIGTERM
            saved, start = sum(clocks.saving), time.thread_time()
            try:
                super().__call__(state, metrics)
            finally:
                clocks.watching.append(time.thread_time() - start - (sum(clocks.saving) - saved))

        def save(self, state: TrainState, *, must: bool = False) -> Path | None:
            start = time.thread_time()
            path = super().save(state, must=must)
            clocks.saving.append(time.thread_time() - start)
            return path

    class TimedGate(Gate):
        def remember(self) -> None:
            start = time.thread_time()
            super().remember()
            clocks.gating.append(time.thread_time() - start)

        def admits(self, loss: Tensor, keys: Tensor, ids: Tensor) -> bool:
            start = time.thread_time()
            admitted = super().admits(loss, keys, ids)
            clocks.gating[-1] += time.thread_time() - start
            return admitted

    patches = mock.patch.object(pretrain, "Watch", Timed), mock.patch.object(pretrain, "Gate", TimedGate)
    with tempfile.TemporaryDirectory() as out, patches[0], patches[1]:
        try:
            pretrain.pretrain(folder, Path(out, "run"), recipe=recipe, device="cpu")
        except Stopped:
            if len(clocks.cpu) < LAST:  # by another signal than ours
                raise
    return clocks


def safety(rounds: int) -> Iterator[Result]:
    """The demo with its log, its NaN gate and a checkpoint a minute, over the same without."""
    found = [run(recipes.named("demo"), demo_data() / "train") for _ in range(min(rounds, RUNS))]
    with_it, without = [], []
    for clocks in found:
        extra = statistics.mean(clocks.watching) + statistics.mean(clocks.gating)
        bare = clocks.between(clocks.cpu) - extra  # a checkpoint comes after the last step
        a_minute = statistics.mean(clocks.saving) * bare / MINUTE
        without.append(bare)
        with_it.append(bare + extra + a_minute)
    yield result("safety/demo", with_it, without, against="steps without log, NaN gate and checkpoints")


def checkpoints(rounds: int) -> Iterator[Result]:
    """A checkpoint of ResNet-18, its momentum encoder and a queue. Written aside, hashed, listed."""
    recipe = step.resnet18()
    state = step.state(recipe)
    step.ours_of(state, recipe)()  # the optimizer has a state from now on
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, content = folder / "plain.pt", folder / "content"
        torch.save(state.state_dict(), plain)
        bytes_of_it = plain.read_bytes()
        yield compare(
            "checkpoint/resnet18", lambda: checkpoint.save(folder, state, recipe=recipe.to_json()),
            lambda: torch.save(state.state_dict(), plain), floor=lambda: content.write_bytes(bytes_of_it),
            against="torch.save, neither synced nor hashed; lower bound: writing the bytes", rounds=rounds,
        )  # fmt: skip


def input_alone(recipe: Recipe, folder: Path) -> tuple[float, float]:
    """CPU and wall seconds of a mini-batch that nobody trains on."""
    images = find_images([folder])
    cpu.kernels(wait=True)
    with tempfile.TemporaryDirectory() as out:
        clock = clock_of(recipe, len(images))
        job = Job(images, recipe, clock, step.CPU, RunFolder(Path(out)), RunOptions(), workers_for(None))
        batches = iter(job.loader(range(2 * LAST)))
        next(islice(batches, FIRST - 1, None))
        busy, wall = time.process_time(), time.perf_counter()
        next(islice(batches, LAST - FIRST - 1, None))
        return (time.process_time() - busy) / (LAST - FIRST), (time.perf_counter() - wall) / (LAST - FIRST)


def step_alone(recipe: Recipe) -> tuple[float, float]:
    """CPU and wall seconds of a step on a ready mini-batch."""
    work, steps = step.ours(recipe), LAST - FIRST
    work()
    busy, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        work()
    return (time.process_time() - busy) / steps, (time.perf_counter() - wall) / steps


def throughput(recipe: Recipe, folder: Callable[[Path], Path], rounds: int) -> Iterator[Result]:
    """A step of a run, over the input and the step, each by itself: what of the ideal is reached is the floor's share.

    In CPU time, which is as on a single core. By the clock, the two can overlap, and other processes disturb.
    """
    together, apart = [], []
    with tempfile.TemporaryDirectory() as scratch:
        images = folder(Path(scratch))
        for _ in range(min(rounds, RUNS)):
            clocks = run(recipe, images)
            together.append((clocks.between(clocks.cpu), clocks.between(clocks.wall)))
            apart.append(tuple(map(sum, zip(input_alone(recipe, images), step_alone(recipe), strict=True))))
    for which, name in enumerate((f"throughput/{recipe.name}", f"throughput/{recipe.name}/wall")):
        ideal = [one[which] for one in apart]
        yield result(
            name, [one[which] for one in together], ideal, floor=ideal,
            against="input alone + step alone, a mini-batch" + (", by the clock" if which else ""),
        )  # fmt: skip


def depths(rounds: int) -> Iterator[Result]:
    """Steps of a run on photos, by the clock, with more or fewer mini-batches made ahead than is usual."""
    recipe, times = photos(), {depth: [] for depth in DEPTHS}
    with tempfile.TemporaryDirectory() as scratch:
        images = jpegs(Path(scratch), 512, sizes=SQUARES)
        for _ in range(rounds):
            for depth, of_it in times.items():
                with mock.patch.object(loader, "AHEAD", depth):
                    clocks = run(recipe, images)
                of_it.append(clocks.between(clocks.wall))
    for depth in (one for one in DEPTHS if one != loader.AHEAD):
        against = f"{loader.AHEAD} mini-batches made ahead; photos of 224 pixels, by the clock"
        yield result(f"prefetch/{depth}", times[depth], times[loader.AHEAD], against=against)


def photos() -> Recipe:
    """A network so narrow that reading takes a good part of the time, on 512 photos."""
    changes = {
        "encoder.name": "resnet10", "encoder.width": 0.25, "method.size": 256, "method.bn_groups": 2,
        "optim.batch_size": 32, "optim.epochs": 40, "compute.threads": 1,
    }  # fmt: skip
    return recipes.named("moco_v2_r50").but("photos-224", changes)


ROWS = [
    Row("checkpoint/resnet18", checkpoints),
    Row("safety/demo", safety),
    Row("throughput/demo", partial(throughput, recipes.named("demo"), lambda _: demo_data() / "train")),
    Row(
        "throughput/photos-224",
        partial(throughput, photos(), lambda scratch: jpegs(scratch, 512, sizes=SQUARES)),
        slow=True,
    ),
    Row("prefetch", depths, slow=True),
]
