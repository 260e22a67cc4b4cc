"""Measure this machine on these images, and choose the network, view size and length of a run within a time."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from moco import recipes
from moco.data.augment.kernel_loading import load_kernels
from moco.data.decode.decode import BadImage
from moco.data.loader.shrunk import SHRUNK_MEMORY, ShrunkImages
from moco.data.sources.images import Images, Subset
from moco.planning.choose import FEWEST_STEPS, MAX_EPOCHS, ImageCost, choose_batch, choose_scale, choose_shrink
from moco.planning.sample_facts import SampleFacts, measure_sample
from moco.recipe import Recipe, RecipeError
from moco.recipes.auto import NETWORK_SIZES, SMALL_DATA
from moco.text import duration
from moco.train.measure_step import StepCost, measure_step, sample_of

PROBE = 50.0  # [s] at most, for measuring
SHARE = 0.15  # of the budget, at most, for measuring
SAMPLE = 256  # images, at least
SCALED = 32  # images that are decoded smaller to measure their time, at most
KEPT_SIDE = 448  # [pixels] of the images of the sample that stay in memory: twice the largest view
OVERHEAD = 1.1  # a run's time over that of its steps: diagnosis, checkpoints, comparison at its end
CLOSING = 10.0  # [s] for the end of a run: scores, pictures, report, encoder
CLOSING_MEMORY = 100 * 2**20  # [bytes] of diagnosis, pictures and report, over that of training: docs/log.md
FASTER = 0.95  # a variant with less than this share of the time is faster

ReportLine = Callable[[str], None]


@dataclass(frozen=True)
class Alternative:
    """A run that was considered."""

    scale: str  # of NETWORK_SIZES; for a recipe that is not `auto`, its name
    recipe: Recipe
    cost: StepCost
    image: ImageCost
    images: int

    @property
    def seen(self) -> float:
        """Images that the run sees, counted each time."""
        return self.steps * self.recipe.optim.batch_size

    @property
    def steps(self) -> int:
        return self.recipe.optim.total_steps(self.images)

    @property
    def seconds(self) -> float:
        """Of the whole run, without measuring."""
        return OVERHEAD * self.image.seconds(self.seen, self.images) + CLOSING

    @property
    def memory(self) -> int | None:
        """[bytes] maximum of the process."""
        kept = min(self.cost.kept * self.images, SHRUNK_MEMORY)
        return None if self.cost.memory is None else round(self.cost.memory + kept + CLOSING_MEMORY)


@dataclass(frozen=True)
class BudgetPlan:
    """The runs that were considered for a budget, and the one that was chosen."""

    budget: float  # [s]
    facts: SampleFacts
    alternatives: tuple[Alternative, ...]
    chosen: Alternative
    measured: float  # [s] that measuring took


@dataclass
class RecipeMeasurer:
    """Measures recipes on a sample of the images, until its time is up."""

    images: Images
    place: torch.device
    workers: int
    seconds: float  # for measuring in all
    report: ReportLine
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        load_kernels()  # now, not in the first measurement

    @cached_property
    def facts(self) -> SampleFacts:
        self.report(f"measuring this machine: reading images (up to {duration(self.seconds)} in all)")
        return measure_sample(self.images, seconds=self.seconds / 6)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    @cached_property
    def _kept(self) -> Subset:
        """A sample that is read once. It has few different images if reading takes long."""
        count = int(np.clip(self.seconds / 8 / max(self.facts.read, 1e-6), 16, SAMPLE))
        small = ShrunkImages(sample_of(self.images, count), KEPT_SIDE)
        return Subset(small, np.arange(2 * SAMPLE) % len(small))

    def measure(self, recipe: Recipe, *, seconds: float, scale: str = "", model: Any = None) -> Alternative:
        """Measure a recipe for about so many seconds."""
        self.report(f"measuring this machine: {scale or recipe.name}, {recipe.compute.precision}")
        images = self._kept if recipe.data.shrink is not None else self._sample(recipe.optim.batch_size)
        cost = measure_step(recipe, images, self.place, workers=self.workers, seconds=seconds, model=model)
        threads = max(1, min(self.workers, os.cpu_count() or 1))
        first = self._read_once(recipe) / threads if cost.kept else 0.0
        image = ImageCost(cost.seconds / recipe.optim.batch_size, first)
        return Alternative(scale or recipe.name, recipe, cost, image, len(self.images))

    def _read_once(self, recipe: Recipe) -> float:
        """[s] to read an image that is then kept in memory, in one thread."""
        if recipe.data.decode == "exact" or recipe.data.shrink is None:
            return self.facts.read
        shrunk = ShrunkImages(sample_of(self.images, SCALED), recipe.data.shrink, memory=0, scaled=True)
        began, read = time.perf_counter(), 0
        for index in range(len(shrunk)):
            with suppress(BadImage):
                shrunk.read(index)
                read += 1
            if time.perf_counter() - began > self.seconds / 30:
                break
        return (time.perf_counter() - began) / read if read else self.facts.read

    def _sample(self, batch: int) -> Images:
        return sample_of(self.images, max(SAMPLE, 4 * batch))


def plan_budget(
    images: Images,
    place: torch.device,
    *,
    workers: int,
    budget: float,
    changes: dict[str, Any] | None = None,
    report: ReportLine = lambda _: None,
) -> BudgetPlan:
    """Measure the scales of `auto` from the cheapest on, and choose a run that ends within `budget` seconds.

    Args:
        changes: to each recipe that is considered, by dotted field name.
        report: called with a line on what is being measured.

    Raises:
        RecipeError: the budget is too short for any run.
        DataError: no image can be read.
    """
    probe = RecipeMeasurer(images, place, workers, min(PROBE, SHARE * budget), report)
    cores = torch.get_num_threads()
    found: list[Alternative] = []
    for scale in _scales(probe.facts.side, accelerated=place.type != "cpu"):
        if found and _expected(scale, found) > max(probe.left - probe.seconds / 3, 0):
            break
        recipe = _recipe(
            probe, scale, epochs=1, changes=changes, threads=1 if NETWORK_SIZES[scale].width < 0.5 else cores
        )
        found.append(probe.measure(recipe, seconds=probe.seconds / 10, scale=scale))
        if _left(budget, probe) / found[-1].image.step < FEWEST_STEPS * recipe.optim.batch_size:
            break
    left = (budget - probe.seconds - CLOSING) / OVERHEAD
    seen = [(one.scale, one.image.count_affordable(left, len(images))) for one in found]
    scale = choose_scale(seen, len(images))
    alternatives = [_fitted(probe, one, dict(seen)[one.scale], changes) for one in found]
    chosen = next(one for one in alternatives if one.scale == scale)
    chosen = _fastest(probe, chosen)
    chosen = fit_epochs(chosen, _left(budget, probe))
    alternatives = [chosen if one.scale == scale else one for one in alternatives]
    return BudgetPlan(budget, probe.facts, tuple(alternatives), chosen, time.monotonic() - probe.began)


def plan_length(
    recipe: Recipe, images: Images, place: torch.device, *, workers: int, budget: float, model: Any, report: ReportLine
) -> BudgetPlan:
    """Measure `recipe`, and choose the number of epochs that fits into `budget` seconds. Raises as `plan_budget`."""
    probe = RecipeMeasurer(images, place, workers, min(PROBE, SHARE * budget), report)
    measured = probe.measure(recipe, seconds=probe.seconds / 2, model=model)
    chosen = fit_epochs(measured, _left(budget, probe))
    return BudgetPlan(budget, probe.facts, (chosen,), chosen, time.monotonic() - probe.began)


def fit_epochs(one: Alternative, seconds: float) -> Alternative:
    """The same run with as many epochs as fit into `seconds`. Raises RecipeError if these are too few to learn."""
    batch = one.recipe.optim.batch_size
    per_epoch = one.images // batch
    steps = one.image.count_affordable(seconds, one.images) / batch
    if steps < FEWEST_STEPS:
        needed = FEWEST_STEPS * batch * (one.image.step + one.image.first) * OVERHEAD + CLOSING
        raise RecipeError(
            f"the budget is too short: {max(0, int(steps)):,} steps of {batch} images fit into it on this machine, and "
            f"a run expects at least {FEWEST_STEPS}, which take about {duration(needed)}: give a longer --budget"
        )
    epochs = min(MAX_EPOCHS, steps / per_epoch)
    epochs = int(epochs) if epochs >= 20 else int(epochs * 100) / 100  # a part of an epoch matters in short runs
    return replace(one, recipe=with_epochs(one.recipe, max(epochs, 0.01), per_epoch))


def with_epochs(recipe: Recipe, epochs: float, per_epoch: int) -> Recipe:
    """The recipe with another length; `auto` fits its m to it."""
    changes: dict[str, Any] = {"optim.epochs": epochs}
    if recipe.name == "auto" and recipe.method.dictionary == "queue":
        changes["method.momentum"] = recipes.momentum_for(epochs * per_epoch)
    return recipe.but(None, changes)


def _scales(side: int, *, accelerated: bool) -> Iterator[str]:
    """The scales for images of that size, from the cheapest on."""
    for scale in NETWORK_SIZES:
        if scale == "full" and side <= SMALL_DATA:  # the same as large
            return
        if not (accelerated and scale == "tiny"):
            yield scale


def _expected(scale: str, found: list[Alternative]) -> float:
    """[s] that measuring `scale` will take, from the cost of the last one: four steps and more of larger networks."""
    one, last = NETWORK_SIZES[scale], NETWORK_SIZES[found[-1].scale]
    larger = (one.width * one.size) ** 2 * one.batch / ((last.width * last.size) ** 2 * last.batch)
    return 4 * larger * found[-1].cost.seconds


def _recipe(
    probe: RecipeMeasurer,
    scale: str,
    *,
    epochs: float,
    changes: dict[str, Any] | None,
    threads: int,
    batch: int | None = None,
) -> Recipe:
    facts, accelerated = probe.facts, probe.place.type != "cpu"
    size = min(NETWORK_SIZES[scale].size, facts.side)
    recipe = recipes.auto(
        len(probe.images), side=facts.side, accelerated=accelerated, distinct=facts.distinct, scale=scale,
        epochs=epochs, batch_size=(changes or {}).get("optim.batch_size", batch),
        shrink=choose_shrink(facts.side, size, len(probe.images), SHRUNK_MEMORY),
    )  # fmt: skip
    return recipe.but(None, {"compute.threads": threads} | (changes or {}))


def _fitted(probe: RecipeMeasurer, one: Alternative, seen: float, changes: dict[str, Any] | None) -> Alternative:
    """`one` with the length and the mini-batch for so many images."""
    batch = choose_batch(one.scale, seen, one.images)
    threads = one.recipe.compute.threads or 1
    epochs = max(0.01, round(seen / one.images, 2))
    return replace(one, recipe=_recipe(probe, one.scale, epochs=epochs, changes=changes, threads=threads, batch=batch))


def _fastest(probe: RecipeMeasurer, one: Alternative) -> Alternative:
    """Measure numbers of threads, and bf16 beside fp32, and return the fastest."""
    best = probe.measure(one.recipe, seconds=probe.left / 3, scale=one.scale)
    for variant in _variants(one.recipe, probe.place):
        if probe.left < 4 * best.cost.seconds:
            break
        other = probe.measure(variant, seconds=probe.left / 3, scale=one.scale)
        if other.cost.seconds < FASTER * best.cost.seconds:
            best = other
    return best


def _variants(recipe: Recipe, place: torch.device) -> Iterator[Recipe]:
    """Other ways to compute the same run."""
    cores = torch.get_num_threads()
    if place.type == "cpu" and cores > 1:
        yield recipe.but(None, {"compute.threads": cores if recipe.compute.threads == 1 else 1})
    if recipe.compute.precision == "fp32" and place.type in ("cpu", "cuda"):
        yield recipe.but(None, {"compute.precision": "bf16"})


def _left(budget: float, probe: RecipeMeasurer) -> float:
    """[s] for the steps of a run that starts now, or after all measuring."""
    spent = max(time.monotonic() - probe.began, 0.0)
    return max(0.0, (budget - spent - CLOSING) / OVERHEAD)
