"""The recipes by name. They consist of numbers only, each with its source; one file per paper."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moco.recipe import Recipe, RecipeError, View, unknown
from moco.recipes import cifar, end_to_end, memory_bank, moco_v1, moco_v2, moco_v3
from moco.recipes import demo as demo_recipe
from moco.recipes.auto import auto, momentum_for
from moco.recipes.demo import demo
from moco.recipes.sources_of_numbers import Origin

__all__ = ["ORIGINS", "PAIRS", "RECIPES", "VIEWS", "auto", "find_recipe", "momentum_for", "named", "parse_settings"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "moco_v1_r50": moco_v1.moco_v1_r50,
    "moco_v1_rx50": moco_v1.moco_v1_rx50,
    "moco_v1_r50w2x": moco_v1.moco_v1_r50w2x,
    "moco_v1_r50w4x": moco_v1.moco_v1_r50w4x,
    "moco_v1_ig1b": moco_v1.moco_v1_ig1b,
    "moco_v2_r50": moco_v2.moco_v2_r50,
    "moco_v2_r50_800": moco_v2.moco_v2_r50_800,
    "moco_v3_r50_100": moco_v3.moco_v3_r50_100,
    "moco_v3_r50_300": moco_v3.moco_v3_r50_300,
    "moco_v3_r50_1000": moco_v3.moco_v3_r50_1000,
    "moco_v3_vit_small": moco_v3.moco_v3_vit_small,
    "moco_v3_vit_base": moco_v3.moco_v3_vit_base,
    "moco_v3_vit_large": moco_v3.moco_v3_vit_large,
    "end_to_end_256": end_to_end.end_to_end_256,
    "end_to_end_512": end_to_end.end_to_end_512,
    "end_to_end_1024": end_to_end.end_to_end_1024,
    "memory_bank_infonce": memory_bank.memory_bank_infonce,
    "memory_bank_nce": memory_bank.memory_bank_nce,
    "moco_cifar": cifar.moco_cifar,
    "moco_cifar_symmetric": cifar.moco_cifar_symmetric,
    "demo": demo,
}
ORIGINS: dict[str, Origin] = (
    moco_v1.ORIGINS | moco_v2.ORIGINS | moco_v3.ORIGINS | end_to_end.ORIGINS | memory_bank.ORIGINS | cifar.ORIGINS
    | demo_recipe.ORIGINS
)  # fmt: skip
VIEWS: dict[str, View] = {"moco_v1": moco_v1.V1_VIEW, "moco_v2": moco_v2.V2_VIEW, "cifar": cifar.CIFAR_VIEW}
PAIRS: dict[str, tuple[View, View]] = {name: (view, view) for name, view in VIEWS.items()} | {
    "moco_v3": moco_v3.V3_VIEWS,
    "moco_v3_vit": moco_v3.V3_VIT_VIEWS,
}


def named(name: str) -> Recipe:
    """The recipe called `name`. Raises RecipeError, which lists similar names."""
    if name not in RECIPES:
        raise RecipeError(unknown("recipe", name, ["auto", *RECIPES]))
    return RECIPES[name]()


def find_recipe(recipe: str) -> Recipe:
    """The recipe of that name, or in that JSON file. Raises RecipeError."""
    if not recipe.endswith(".json"):
        return named(recipe)
    if not Path(recipe).is_file():
        raise RecipeError(f"--recipe expects the name or the JSON file of a recipe, and there is no file {recipe}")
    return Recipe.read(Path(recipe))


def parse_settings(assignments: list[str]) -> dict[str, Any]:
    """`["optim.epochs=20", "data.views=moco_v3"]` as the dict that `Recipe.but` takes.

    Values are parsed as JSON if possible and are strings otherwise. Views may be given by name: `data.views=moco_v3`
    sets both views, `data.views.1=moco_v3` sets only the second. `data.views.*.blur=0` sets the blur of both.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise RecipeError(f"--set expects FIELD=VALUE such as optim.epochs=20, got '{assignment}'")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # not JSON, or a number of more than 4,300 digits
            value = text
        if name in ("data.views", "data.views.0", "data.views.1") and isinstance(value, str):
            if value not in PAIRS:
                raise RecipeError(unknown("views", value, list(PAIRS)))
            value = PAIRS[value] if name == "data.views" else PAIRS[value][int(name[-1])]
        both = name.startswith("data.views.*.")
        changes |= {name.replace("*", view, 1): value for view in ("0", "1")} if both else {name: value}
    return changes
