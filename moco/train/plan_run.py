"""Plan a run: its images, recipe, length, folder and options. All are checked before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moco.data.loader.bad_images import Quarantine
from moco.data.loader.deal_keys import DealtLoader
from moco.data.loader.loader import ViewLoader
from moco.data.sources.band_images import in_bands
from moco.data.sources.groups import groups_of
from moco.data.sources.images import Images
from moco.data.sources.open import Sources, open_images
from moco.device import workers_for
from moco.distributed import on_main, rank, share, shuffled_order, world_size
from moco.encoders import check_name
from moco.files import check_writable
from moco.method import Contrast
from moco.recipe import Recipe, RecipeError
from moco.recipe_base import RecipeBase
from moco.train.build import is_dealt, scaler_for
from moco.train.checkpoint import Clock, TrainState
from moco.train.existing_folder import read_stored_recipe
from moco.train.fit_to_time import Asked, Fitted, check_budget, fit_to_time
from moco.train.loop import make_shared_generator
from moco.train.open_run import check_before_lock
from moco.train.optim import optimizer_for
from moco.train.options import RunOptions
from moco.train.out_overlap import check_no_overlap
from moco.train.rank_sync import check_same_images
from moco.train.resolve_recipe import band_changes, check_fits, check_jitter, check_learns, check_order, resolve
from moco.train.run_folder import RunFolder
from moco.train.trackers import TrackedRun, check_trackers
from moco.weights.own_files import read_run_id
from moco.weights.pretrained import check_library_name


@dataclass(frozen=True)
class AnyJob:
    """A planned run of any kind."""

    images: Images
    recipe: RecipeBase
    clock: Clock
    place: torch.device
    run: RunFolder
    options: RunOptions
    workers: int  # threads or processes that read images

    def describe_for_trackers(self, *, parts: int = 1) -> TrackedRun:
        """What trackers have to know about this run, once its checkpoint is loaded.

        Args:
            parts: of the folder's path that are the run's name.
        """
        folder = self.run.path
        name = "/".join(folder.resolve().parts[-parts:])
        return TrackedRun(name, folder, read_run_id(folder) or "", self.recipe.fields(), self.clock.step)


@dataclass(frozen=True)
class PretrainJob(AnyJob):
    """A planned pre-training run."""

    recipe: Recipe
    time: str | None = None  # what was measured about the time of the run; None: nothing

    def state(self, contrast: Contrast) -> TrainState:
        optimizer = optimizer_for(contrast, self.recipe.optim)
        return TrainState(contrast, optimizer, self.clock, scaler_for(self.recipe, self.place))

    def loader(self, steps: range) -> ViewLoader | DealtLoader:
        """This rank's share of the mini-batches of `steps`."""
        file = self.run.path / "bad_images.csv" if on_main() else None
        return self._loader_kind()(
            self.images, self.recipe.data, batch_size=self.recipe.optim.batch_size, seed=self.recipe.seed,
            steps=steps, rank=rank(), world_size=world_size(), workers=self.workers, device=self.place,
            quarantine=Quarantine(file, self.options.max_bad, len(self.images)), processes=self.options.processes,
            compiled=self.recipe.compute.compile,
        )  # fmt: skip

    def _loader_kind(self) -> Callable[..., ViewLoader | DealtLoader]:
        """With compute.deal_keys on several ranks, the loader shuffles the views of the keys over the ranks."""
        if not is_dealt(self.recipe):
            return ViewLoader
        seed, count = self.recipe.seed, self.recipe.optim.batch_size
        return partial(DealtLoader, order=lambda step: shuffled_order(count, make_shared_generator(seed, step)).numpy())


def plan_job(
    data: Sources,
    out: Path,
    place: torch.device,
    options: RunOptions,
    *,
    recipe: str | Recipe,
    model: str | nn.Module | None,
    changes: dict[str, Any],
    init: str | Path | None,
    budget: float | None = None,
    bands: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> PretrainJob:
    """Plan a run: make all checks that need no network, and fit it to its time. Writes nothing.

    Args:
        budget: [s] that the whole run may take; it decides the length, and with `auto` network and size of views.
        bands: read all bands of the images, and measure their ranges, means and deviations.
        report: called with a line on what is being measured.

    Raises:
        RecipeError: a recipe, device, folder or budget that cannot be used.
        DataError: no images.
    """
    check_device(options.device, place)
    check_trackers(options.trackers)
    check_budget(Asked(recipe, model, changes, budget))
    images, workers = open_images(data, bands=bands), workers_for(options.workers)
    stored = None if options.overwrite else read_stored_recipe(out)
    asked = Asked(recipe, model, (band_changes(images, stored) if bands else {}) | changes, budget)
    chosen = share_recipe(
        lambda: resolve(recipe, images, place, model=model, changes=asked.changes, stored=stored, budget=budget)
    )
    _check_recipe_on(images, chosen)
    if isinstance(init, str):
        check_library_name(init)
    if on_main():
        check_no_overlap(out, images, eval_data=options.eval_data, init=init, overwrite=options.overwrite)
        check_before_lock(RunFolder(out), chosen, resume=options.resume, overwrite=options.overwrite)
        if not options.dry_run:
            check_writable(RunFolder(out).path / "recipe.json")  # before a minute of measuring
    fitted = Fitted(chosen)
    if stored is None:
        fitted = fit_to_time(asked, chosen, in_bands(images, chosen.data), place, workers=workers, report=report)
        check_fits(fitted.recipe, len(images))
    clock = clock_of(fitted.recipe, len(images))
    check_learns(fitted.recipe, clock)
    return PretrainJob(images, fitted.recipe, clock, place, RunFolder(out), options, workers, fitted.time)


def _check_recipe_on(images: Images, recipe: Recipe) -> None:
    """Raise RecipeError for a recipe that does not fit the images, DataError for images that differ between ranks."""
    check_name(recipe.encoder.name)
    check_fits(recipe, len(images))
    check_order(recipe, images)
    check_jitter(recipe)
    groups_of(images, recipe.data.groups)
    check_same_images(images)


def check_device(option: str, place: torch.device) -> None:
    """Raise RecipeError for a device that several ranks cannot share."""
    if world_size() > 1 and (place.type == "mps" or ":" in option):
        raise RecipeError(
            f"--device expects cpu or cuda with several ranks ({world_size()} here; each takes its own GPU), "
            f"got {place if place.type == 'mps' else option}"
        )


def share_recipe(make: Callable[[], Recipe]) -> Recipe:
    """The recipe that rank 0 makes, on every rank. Its defaults depend on the run folder and the machine."""
    return Recipe.from_json(share(make().to_json().encode() if on_main() else b"").decode())


def clock_of(recipe: Recipe, num_images: int) -> Clock:
    """The run's length in steps: whole mini-batches only."""
    return Clock(num_images // recipe.optim.batch_size, recipe.optim.total_steps(num_images))
