"""The recipes by name: numbers only, one file a paper, each number with its source."""

import json
from collections.abc import Callable
from typing import Any

from moco.recipe import Recipe, RecipeError, View, unknown
from moco.recipes.auto import auto
from moco.recipes.cifar import CIFAR_VIEW, moco_cifar, moco_cifar_symmetric
from moco.recipes.demo import demo
from moco.recipes.moco_v1 import V1_VIEW, moco_v1_r50
from moco.recipes.moco_v2 import V2_VIEW, moco_v2_r50, moco_v2_r50_800

__all__ = ["RECIPES", "VIEWS", "auto", "named", "parse_settings"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "moco_v1_r50": moco_v1_r50,
    "moco_v2_r50": moco_v2_r50,
    "moco_v2_r50_800": moco_v2_r50_800,
    "moco_cifar": moco_cifar,
    "moco_cifar_symmetric": moco_cifar_symmetric,
    "demo": demo,
}
VIEWS: dict[str, View] = {"moco_v1": V1_VIEW, "moco_v2": V2_VIEW, "cifar": CIFAR_VIEW}


def named(name: str) -> Recipe:
    """The recipe called `name`. Raises RecipeError with the nearest names."""
    if name not in RECIPES:
        raise RecipeError(unknown("recipe", name, list(RECIPES)))
    return RECIPES[name]()


def parse_settings(assignments: list[str]) -> dict[str, Any]:
    """`["optim.epochs=20", "data.views=moco_v1"]` as the dict that `Recipe.but` takes.

    Values are JSON where they parse as JSON, and otherwise strings; views may be given by name.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise RecipeError(f"--set expects FIELD=VALUE such as optim.epochs=20, got '{assignment}'")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if name.startswith("data.views") and isinstance(value, str):
            if value not in VIEWS:
                raise RecipeError(unknown("views", value, list(VIEWS)))
            value = (VIEWS[value], VIEWS[value]) if name == "data.views" else VIEWS[value]
        changes[name] = value
    return changes
