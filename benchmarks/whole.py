"""Whole runs: what checkpoints, log and NaN guard add to a step, and how well input and training overlap."""

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
from benchmarks.measure import Result, Row, result
from benchmarks.pictures import jpegs
from moco import recipes
from moco.data.augment import cpu
from moco.data.loader import loader
from moco.data.sources.demo import demo_data
from moco.data.sources.folder import find_images
from moco.device import workers_for
from moco.recipe import Recipe
from moco.train import pretrain
from moco.train.after_step import AfterStep, Stopped
from moco.train.checkpoint import TrainState
from moco.train.nan_guard import NanGuard
from moco.train.options import RunOptions
from moco.train.plan_run import PretrainJob, clock_of
from moco.train.reporters import Silent
from moco.train.run_folder import RunFolder
from moco.train.saving import Saver

FIRST, LAST = 8, 40  # steps of a run between which time is measured; the first ones are left out
MINUTE = 60.0  # [s] between two checkpoints
RUNS = 3  # at most; each has many steps
SQUARES = ((224, 224),)  # [pixels] of the photos that a run reads
DEPTHS = (1, 2, 4, 8)  # prefetched mini-batches


@dataclass
class Clocks:
    """The times of a run's steps."""

    cpu: list[float] = field(default_factory=list)  # [s] of the process, after each step
    wall: list[float] = field(default_factory=list)
    logging: list[float] = field(default_factory=list)  # [CPU s] of the main thread, in `AfterStep`, after each step
    saving: list[float] = field(default_factory=list)  # [CPU s] of the main thread, of each checkpoint
    nan_guard: list[float] = field(default_factory=list)  # [CPU s] of the main thread, in the NaN guard, in each step

    def per_step(self, clock: list[float]) -> float:
        """Seconds per step."""
        return (clock[LAST - 1] - clock[FIRST - 1]) / (LAST - FIRST)


def run(recipe: Recipe, folder: Path) -> Clocks:
    """`moco.pretrain` on a folder, stopped after LAST steps as by a signal."""
    clocks = Clocks()
    cpu.kernels(wait=True)

    class Timed(AfterStep):
        def __call__(self, state: TrainState, metrics: dict[str, Any]) -> None:
            clocks.cpu.append(time.process_time())
            clocks.wall.append(time.perf_counter())
            if state.clock.step == LAST:
                self.stop.number = signal.SIGTERM
            saved, start = sum(clocks.saving), time.thread_time()
            try:
                super().__call__(state, metrics)
            finally:
                clocks.logging.append(time.thread_time() - start - (sum(clocks.saving) - saved))

        def save(self, state: TrainState, *, must: bool = False, wait: bool = False) -> Path | None:
            start = time.thread_time()
            path = super().save(state, must=must, wait=wait)
            clocks.saving.append(time.thread_time() - start)
            return path

    class TimedGuard(NanGuard):
        def remember(self) -> None:
            start = time.thread_time()
            super().remember()
            clocks.nan_guard.append(time.thread_time() - start)

        def check_step(self, loss: Tensor, keys: Tensor, ids: Tensor) -> bool:
            start = time.thread_time()
            admitted = super().check_step(loss, keys, ids)
            clocks.nan_guard[-1] += time.thread_time() - start
            return admitted

    patches = mock.patch.object(pretrain, "AfterStep", Timed), mock.patch.object(pretrain, "NanGuard", TimedGuard)
    with tempfile.TemporaryDirectory() as out, patches[0], patches[1]:
        try:
            pretrain.pretrain(folder, Path(out, "run"), recipe=recipe, device="cpu")
        except Stopped:
            if len(clocks.cpu) < LAST:  # stopped by a real signal
                raise
    return clocks


def safety(rounds: int) -> Iterator[Result]:
    """The demo with log, NaN guard and a checkpoint per minute, against the demo without them."""
    found = [run(recipes.named("demo"), demo_data() / "train") for _ in range(min(rounds, RUNS))]
    with_it, without = [], []
    for clocks in found:
        extra = statistics.mean(clocks.logging) + statistics.mean(clocks.nan_guard)
        bare = clocks.per_step(clocks.cpu) - extra  # without checkpoints: the only one is saved after the last step
        a_minute = statistics.mean(clocks.saving) * bare / MINUTE
        without.append(bare)
        with_it.append(bare + extra + a_minute)
    yield result("safety/demo", with_it, without, against="steps without log, NaN guard and checkpoints")


@dataclass(frozen=True)
class SaveTime:
    """Seconds of one checkpoint."""

    held_cpu: float  # CPU time in which training does not go on
    held: float  # the same by the clock
    work: float  # CPU time of all threads, until it is on the disk


def checkpoints(rounds: int) -> Iterator[Result]:
    """A checkpoint of ResNet-18, its momentum encoder and a queue: it is copied, then written and hashed by a thread.

    Against torch.save: how long training does not go on, and all work, which another core can do.
    """
    recipe = step.resnet18()
    state = step.state(recipe)
    step.ours_of(state, recipe)()  # so that the optimizer has its state
    ours, plain, floor = list[SaveTime](), list[SaveTime](), list[float]()
    with tempfile.TemporaryDirectory() as name:
        run, file = RunFolder(Path(name)), Path(name, "plain.pt")
        run.checkpoints.mkdir()
        saver = Saver(run, recipe.to_json(), Silent(), every=None)
        for _ in range(rounds + 1):
            ours.append(_time_save(lambda: saver.save(state, must=False), lambda: saver.collect(wait=True)))
            plain.append(_time_save(lambda: torch.save(state.state_dict(), file), lambda: None))
            start = time.thread_time()
            for x in _tensors(state.state_dict()):
                x.clone()
            floor.append(time.thread_time() - start)
    for suffix, which, against, bound in (
        ("", "held_cpu", "torch.save, neither synced nor hashed; lower bound: copies of the tensors", floor[1:]),
        ("/wall", "held", "the same, by the clock", None),
        ("/work", "work", "the same; ours with the work of the thread: written, read back, hashed", None),
    ):
        mine, theirs = ([getattr(one, which) for one in times[1:]] for times in (ours, plain))
        yield result(f"checkpoint/resnet18{suffix}", mine, theirs, against=against, lower_bound=bound)


def _time_save(save: Callable[[], object], finish: Callable[[], object]) -> SaveTime:
    work, cpu_time, wall = time.process_time(), time.thread_time(), time.perf_counter()
    save()
    held_cpu, held = time.thread_time() - cpu_time, time.perf_counter() - wall
    finish()
    return SaveTime(held_cpu, held, time.process_time() - work)


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, dict | list | tuple):
        for one in node.values() if isinstance(node, dict) else node:
            yield from _tensors(one)


def input_alone(recipe: Recipe, folder: Path) -> tuple[float, float]:
    """CPU and wall seconds of a mini-batch, without training."""
    images = find_images([folder])
    cpu.kernels(wait=True)
    with tempfile.TemporaryDirectory() as out:
        clock = clock_of(recipe, len(images))
        job = PretrainJob(images, recipe, clock, step.CPU, RunFolder(Path(out)), RunOptions(), workers_for(None))
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
    """A step of a run against input plus step, measured separately. Their sum is also the lower bound.

    Measured in CPU time, as on one core, and in wall time, where the two can overlap and other processes interfere.
    """
    together, apart = [], []
    with tempfile.TemporaryDirectory() as scratch:
        images = folder(Path(scratch))
        for _ in range(min(rounds, RUNS)):
            clocks = run(recipe, images)
            together.append((clocks.per_step(clocks.cpu), clocks.per_step(clocks.wall)))
            apart.append(tuple(map(sum, zip(input_alone(recipe, images), step_alone(recipe), strict=True))))
    for which, name in enumerate((f"throughput/{recipe.name}", f"throughput/{recipe.name}/wall")):
        ideal = [one[which] for one in apart]
        yield result(
            name, [one[which] for one in together], ideal, lower_bound=ideal,
            against="input alone + step alone, a mini-batch" + (", by the clock" if which else ""),
        )  # fmt: skip


def depths(rounds: int) -> Iterator[Result]:
    """Steps of a run on photos, in wall time, with more or fewer prefetched mini-batches than the default."""
    recipe, times = photos(), {depth: [] for depth in DEPTHS}
    with tempfile.TemporaryDirectory() as scratch:
        images = jpegs(Path(scratch), 512, sizes=SQUARES)
        for _ in range(rounds):
            for depth, of_it in times.items():
                with mock.patch.object(loader, "AHEAD", depth):
                    clocks = run(recipe, images)
                of_it.append(clocks.per_step(clocks.wall))
    for depth in (one for one in DEPTHS if one != loader.AHEAD):
        against = f"{loader.AHEAD} mini-batches made ahead; photos of 224 pixels, by the clock"
        yield result(f"prefetch/{depth}", times[depth], times[loader.AHEAD], against=against)


def photos() -> Recipe:
    """A network so narrow that reading images takes much of the time, on 512 photos."""
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
