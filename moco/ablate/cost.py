"""The runs of an ablation and their estimated cost, for `moco ablate --dry-run`."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from moco.ablate.families import Cell, Family, family
from moco.ablate.scales import Scale, at_scale
from moco.encoders import build
from moco.recipe import Recipe, diff
from moco.text import plural

BACKWARD = 2  # cost of a backward pass, in forward passes


def list_costs(name: str, *, scale: str, seeds: int) -> str:
    """List the recipes of an ablation: changes from the base recipe, steps, estimated cost.

    Raises:
        RecipeError: an unknown ablation or scale.
    """
    described, chosen = family(name, scale=scale), at_scale(scale)
    base = described.recipe(Cell("", {}))
    lines = [
        f"{described.title}: {plural(len(described.cells), 'recipe')}, {plural(seeds, 'seed')} each; "
        f"base recipe {described.base.name}",
        f"at the scale {scale}: {chosen.images:,} images, {described.base.optim.epochs} epochs",
        "",
    ]
    total = 0.0
    for cell in described.cells:
        recipe = described.recipe(cell)
        spent = flops(recipe, chosen.images) / chosen.flops_per_unit
        total += seeds * spent
        steps = recipe.optim.epochs * (chosen.images // recipe.optim.batch_size)
        lines.append(f"{cell.name}: {steps:,} steps, about {spent:,.1f} {chosen.unit} each")
        lines += [f"    {line}" for line in diff(base, recipe)] or ["    the base recipe, unchanged"]
    return "\n".join([*lines, "", *_total(described, chosen, total)])


def flops(recipe: Recipe, images: int) -> float:
    """Floating-point operations of a run in its encoders: forward and backward of queries and of trained keys."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(recipe.encoder, size=recipe.data.size)(torch.empty(2, 3, recipe.data.size, recipe.data.size))
    query = 1 + BACKWARD
    passes = {"momentum": query + 1, "shared": 2 * query, "second": 2 * query, "none": query}[recipe.method.key_encoder]
    return counter.get_total_flops() / 2 * passes * (2 if recipe.method.symmetric else 1) * images * recipe.optim.epochs


def _total(described: Family, scale: Scale, total: float) -> list[str]:
    return [
        f"estimate of all runs: {total:,.1f} {scale.unit} ({scale.rate_from}), without evaluation",
        f"paper: {described.source}",
    ]
