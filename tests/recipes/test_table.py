"""docs/recipes.md has every recipe, with the numbers that it really has."""

from pathlib import Path

import pytest

from moco import recipes
from moco.explain import explain
from moco.recipe import Recipe
from moco.recipes.sources_of_numbers import Published, value_text

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(heading: str) -> list[dict[str, str]]:
    """The rows of the first table below a heading, by column."""
    _, found, below = TEXT.partition(f"## {heading}\n")
    assert found, f"no heading {heading}"
    lines = below[below.index("\n|") + 1 :].partition("\n\n")[0].splitlines()
    columns = cells(lines[0])
    return [dict(zip(columns, cells(line), strict=True)) for line in lines[2:]]


RECIPES, VIEWS, PUBLISHED, DEVIATIONS = map(
    table, ("The recipes", "Their views", "What was published", "Where they deviate")
)


DEVIATING = {name: explain(name).deviations for name in recipes.RECIPES}


def encoder(recipe: Recipe) -> str:
    times = f" x {recipe.encoder.width:g}" if recipe.encoder.width != 1 else ""
    return f"{recipe.encoder.name}{times}, {recipe.encoder.head} to {recipe.encoder.dim}"


def keys(recipe: Recipe) -> str:
    method = recipe.method
    return f"{method.dictionary}, {recipe.optim.batch_size if method.size is None else method.size}"


def bn(recipe: Recipe) -> str:
    method = recipe.method
    return f"{method.bn} {method.bn_groups}" if method.bn in ("shuffle", "split") else method.bn


NUMBERS = {
    "encoder": encoder,
    "keys": keys,
    "f_k": lambda recipe: recipe.method.key_encoder,
    "m": lambda recipe: value_text(recipe.method.momentum) if recipe.method.key_encoder == "momentum" else "-",
    "tau": lambda recipe: value_text(recipe.method.temperature),
    "BN": bn,
    "N": lambda recipe: value_text(recipe.optim.batch_size),
    "epochs": lambda recipe: value_text(recipe.optim.epochs),
    "optimizer": lambda recipe: recipe.optim.optimizer,
    "lr": lambda recipe: value_text(recipe.optim.lr),
    "weight decay": lambda recipe: value_text(recipe.optim.weight_decay),
}


def test_every_recipe_is_in_the_table_in_order():
    assert [row["recipe"].strip("`") for row in RECIPES] == list(recipes.RECIPES)


@pytest.mark.parametrize("column", NUMBERS)
def test_every_number_in_the_table_is_the_recipes(column: str):
    told = {row["recipe"].strip("`"): row[column] for row in RECIPES}
    assert told == {name: NUMBERS[column](recipes.named(name)) for name in recipes.RECIPES}


def both(first: float, second: float) -> str:
    return f"{first:g}" if first == second else f"{first:g} and {second:g}"


def test_every_number_of_the_views_is_theirs():
    told = {row.pop("views").strip("`"): row for row in VIEWS}
    assert told == {
        name: {
            "crop area": f"{a.crop_area[0]:g} to {a.crop_area[1]:g}",
            "jitter": f"{a.jitter.p:g}",
            "saturation": f"{a.jitter.saturation:g}",
            "hue": f"{a.jitter.hue:g}",
            "grey": f"{a.grey:g}{', before jitter' if a.grey_first else ''}",
            "blur": both(a.blur, b.blur),
            "solarize": both(a.solarize, b.solarize),
            "flip": f"{a.flip:g}",
            "recipes": ", ".join(f"`{one}`" for one in recipes.RECIPES if recipes.named(one).data.views == (a, b)),
        }
        for name, (a, b) in recipes.PAIRS.items()
    }


def test_every_published_result_is_listed_with_its_source():
    told = [(row["recipe"].strip("`"), Published(row["measured"], float(row["%"]), row["source"])) for row in PUBLISHED]
    assert told == [(name, one) for name, origin in recipes.ORIGINS.items() for one in origin.published]


def test_every_deviation_is_listed_once():
    told = {(row["setting"].strip("`"), row["deviation"]) for row in DEVIATIONS}
    assert told == {item for deviations in DEVIATING.values() for item in deviations.items()}
    assert len(told) == len(DEVIATIONS)


@pytest.mark.parametrize("row", DEVIATIONS, ids=lambda row: row["setting"].strip("`"))
def test_a_deviation_is_listed_with_the_recipes_that_have_it(row: dict[str, str]):
    item = (row["setting"].strip("`"), row["deviation"])
    told = [name.strip().strip("`") for name in row["recipes"].split(",")]
    assert told == [name for name in recipes.RECIPES if item in DEVIATING[name].items()]
