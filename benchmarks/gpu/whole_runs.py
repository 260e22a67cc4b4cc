"""Whole runs on photographs: `moco pretrain` from JPEGs, its input alone, and embedding."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu.steps import resnet50, with_
from benchmarks.gpu.timing import Bench, Measurement, Part, shown
from benchmarks.pictures import jpegs
from moco.data.augment import cpu
from moco.data.sources.folder import find_images
from moco.encoders import build
from moco.evaluate.features import load_pretrained
from moco.recipe import Recipe
from moco.train import pretrain
from moco.train.after_step import AfterStep, Stopped
from moco.train.checkpoint import TrainState
from moco.train.options import RunOptions
from moco.train.plan_run import PretrainJob, clock_of
from moco.train.run_folder import RunFolder
from moco.weights.encoder_folder import save_encoder

DIFFERENT, COPIES = 256, 16  # photographs, and links to each
PHOTOS = Path(tempfile.gettempdir(), "moco-benchmark-photos")


def make_photos(toy: bool) -> None:
    """JPEGs of about 500 x 375 pixels, each of them several times."""
    different, copies = (64, 1) if toy else (DIFFERENT, COPIES)
    folder = photos(toy)
    if folder.exists():
        return
    made = folder.with_suffix(".part")
    jpegs(made, different)
    for file in sorted(made.rglob("*.jpg")):
        for copy in range(1, copies):
            os.link(file, file.with_name(f"{file.stem}-{copy}.jpg"))
    made.rename(folder)


def photos(toy: bool) -> Path:
    return PHOTOS / ("toy" if toy else "full")


def ready_photos(bench: Bench) -> Path:
    """The folder, made before or now."""
    if not photos(bench.toy).exists():
        photos(bench.toy).parent.mkdir(exist_ok=True)
        process = multiprocessing.get_context("spawn").Process(target=make_photos, args=(bench.toy,))
        process.start()
        process.join()
    return photos(bench.toy)


def recipe_of(bench: Bench, **compute: object) -> Recipe:
    """MoCo v2's with a small queue, for the photographs are few; it runs longer than is measured."""
    small = {"method.size": bench.size(2048, 32), "optim.epochs": 100}
    return with_(resnet50(bench), precision="bf16", **compute).but("photos-224", small)


def images_per_second(bench: Bench, recipe: Recipe, workers: int) -> tuple[float, float]:
    """Of `moco.pretrain` between two of its steps, by the clock, and the share of that time it waited for images."""
    first, last = bench.size(10, 1), bench.size(40, 3)
    clock: dict[int, tuple[float, float]] = {}

    class Timed(AfterStep):
        def __call__(self, state: TrainState, metrics: dict[str, Any]) -> None:
            if state.clock.step in (first, last):
                bench.synchronize()
                clock[state.clock.step] = time.perf_counter(), self.waited()
            if state.clock.step == last:
                self.stop.number = signal.SIGTERM
            super().__call__(state, metrics)

    with tempfile.TemporaryDirectory() as out, mock.patch.object(pretrain, "AfterStep", Timed):
        try:
            folder = ready_photos(bench)
            pretrain.pretrain(folder, Path(out, "run"), recipe=recipe, device=bench.device.type, workers=workers)
        except Stopped:
            if last not in clock:
                raise
    (start, waited), (end, waited_then) = clock[first], clock[last]
    return (last - first) * recipe.optim.batch_size / (end - start), (waited_then - waited) / (end - start)


def runs(bench: Bench) -> Iterator[Measurement]:
    """End to end, with more or fewer workers."""
    cores = os.cpu_count() or 1
    for name, workers, compute in (
        ("8 workers", 8, {}), (f"{cores} workers", cores, {}),
        (f"{cores} workers, compiled", cores, {"compile": bench.device.type == "cuda"}),
    ):  # fmt: skip
        part = "moco pretrain, ResNet-50, bf16, JPEGs of 500 x 375"
        try:
            rate, waited = images_per_second(bench, recipe_of(bench, **compute), workers)
            yield Measurement(part, name, rate=round(rate, 1), facts={"waited for images": f"{waited:.0%}"})
        except Exception as error:
            yield Measurement(part, name, error=shown(error))


def inputs(bench: Bench) -> Iterator[Measurement]:
    """The mini-batches of views on the device, without training."""
    cores, recipe, images = os.cpu_count() or 1, recipe_of(bench), find_images([ready_photos(bench)])
    cpu.kernels(wait=True)
    first, last = bench.size(5, 1), bench.size(25, 3)
    for workers in dict.fromkeys((8, cores)):
        for processes in (False, True):
            options = RunOptions(processes=processes)
            with tempfile.TemporaryDirectory() as out:
                clock = clock_of(recipe, len(images))
                job = PretrainJob(images, recipe, clock, bench.device, RunFolder(Path(out)), options, workers)
                batches = iter(job.loader(range(last)))
                next(islice(batches, first - 1, None))
                bench.synchronize()
                start = time.perf_counter()
                for _ in batches:
                    bench.synchronize()
                rate = (last - first) * recipe.optim.batch_size / (time.perf_counter() - start)
            kind = "processes" if processes else "threads"
            yield Measurement("input alone, JPEGs of 500 x 375", f"{workers} {kind}", rate=round(rate, 1))


def embedding(bench: Bench) -> Iterator[Measurement]:
    """`moco.load(...).embed(folder)` with a ResNet-50."""
    recipe, folder = recipe_of(bench), ready_photos(bench)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as weights:
        save_encoder(Path(weights), build(recipe.encoder, size=recipe.data.size), recipe=recipe, facts={})
        encoder = load_pretrained(weights, device=bench.device)
    for workers in dict.fromkeys((8, os.cpu_count() or 1)):
        start = time.perf_counter()
        x = encoder.embed(folder, workers=workers)
        rate = len(x) / (time.perf_counter() - start)
        yield Measurement("embedding, ResNet-50, JPEGs of 500 x 375", f"{workers} workers", rate=round(rate, 1))


PARTS: Sequence[Part] = [Part("input", inputs), Part("runs", runs), Part("embedding", embedding)]
