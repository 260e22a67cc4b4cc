"""Fit a run to the time that it may take: to its budget, or without one to what is sensible on this machine."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from moco.data.sources.images import Images
from moco.distributed import world_size
from moco.planning.describe import describe_time
from moco.recipe import Recipe, RecipeError
from moco.recipes.auto import is_auto, scale_of
from moco.text import duration
from moco.train.plan_budget import BudgetPlan, RecipeMeasurer, ReportLine, plan_budget, plan_length

SENSIBLE = {"cpu": 3600.0}  # [s] of a run by `auto` without a budget, by the kind of device
SENSIBLE_OTHER = 86400.0  # [s] on other devices
QUICK = 10.0  # [s] at most for measuring the recipe that `auto` takes without a budget
QUICK_STEPS = 300  # a run with fewer is not measured: it would take about as long as the run


@dataclass(frozen=True)
class Fitted:
    """A recipe that fits, and what is known about its time."""

    recipe: Recipe
    time: str | None = None  # for the plan; None: nothing was measured


@dataclass(frozen=True)
class Asked:
    """What a run was asked for."""

    recipe: str | Recipe
    model: str | nn.Module | None
    changes: dict[str, Any]  # to the recipe
    budget: float | None  # [s]

    @property
    def network_is_given(self) -> bool:
        """Whether the network or the size of its views is not to be chosen."""
        names = [name for name in self.changes if name.startswith("encoder.") or name in ("data.size", "data.shrink")]
        return self.model is not None or bool(names) or not self.is_auto or scale_of(str(self.recipe)) is not None

    @property
    def is_auto(self) -> bool:
        return isinstance(self.recipe, str) and is_auto(self.recipe)


def check_budget(asked: Asked) -> None:
    """Raise RecipeError if a budget cannot be kept."""
    if asked.budget is None:
        return
    if "optim.epochs" in asked.changes:
        raise RecipeError("--budget chooses the number of epochs: give either --budget or --epochs")
    if world_size() > 1:
        raise RecipeError(
            "--budget measures one process on one device: plan with `moco plan` on one device, and give --epochs"
        )


def fit_to_time(
    asked: Asked, recipe: Recipe, images: Images, place: torch.device, *, workers: int, report: ReportLine
) -> Fitted:
    """The recipe of a new run: with a budget, one that ends within it; else `recipe`, unless `auto` is too slow here.

    Args:
        recipe: what was asked for, without a budget.

    Raises:
        RecipeError: the budget is too short.
    """
    if asked.budget is not None:
        return _fitted(_plan(asked, recipe, images, place, workers=workers, budget=asked.budget, report=report))
    kept = not asked.is_auto or asked.network_is_given or "optim.epochs" in asked.changes
    steps = recipe.optim.total_steps(len(images))
    if kept or world_size() > 1 or steps < QUICK_STEPS:
        return Fitted(recipe)
    probe = RecipeMeasurer(images, place, workers, QUICK, report)
    measured = probe.measure(recipe, seconds=QUICK)
    sensible = SENSIBLE.get(place.type, SENSIBLE_OTHER)
    if measured.seconds <= sensible:
        return Fitted(recipe, describe_time(measured.seconds, measured.image, measured.cost.waited))
    plan = _plan(asked, recipe, images, place, workers=workers, budget=sensible, report=report)
    why = f"a run of {duration(measured.seconds)} is long for this machine, so it was fitted to {duration(sensible)}"
    return Fitted(plan.chosen.recipe, f"{_fitted(plan).time}; {why} (--budget sets another time)")


def _plan(
    asked: Asked,
    recipe: Recipe,
    images: Images,
    place: torch.device,
    *,
    workers: int,
    budget: float,
    report: ReportLine,
) -> BudgetPlan:
    if asked.network_is_given:
        return plan_length(
            recipe, images, place, workers=workers, budget=budget, model=asked.model, report=report
        )  # fmt: skip
    return plan_budget(images, place, workers=workers, budget=budget, changes=asked.changes, report=report)


def _fitted(plan: BudgetPlan) -> Fitted:
    one = plan.chosen
    return Fitted(one.recipe, describe_time(one.seconds, one.image, one.cost.waited))
