"""moco recipes, moco explain."""

import json
import textwrap
from typing import Annotated

import typer

from moco.cli import completion
from moco.cli.errors import errors
from moco.cli.options import Json


def recipes(as_json: Json = False) -> None:
    """List the recipes, each with its published result."""
    with errors():
        from moco.explain import list_recipes

        rows = list_recipes()
        if as_json:
            print(json.dumps(rows))
            return
        for row in rows:
            best = row["published"]
            text = row["what"] + (f" {best['measure']}: {best['value']:g} %" if best else "")
            name = f"{row['name']:<22}"
            print(textwrap.fill(text, 80, initial_indent=name, subsequent_indent=" " * len(name)))


def explain(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            autocompletion=completion.recipe_names,
            help="A recipe's name, a recipe.json, a run folder, or a row of MoCo v1's tables 2 to 6 "
            "(`moco explain transfer` lists them).",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Print each number of a recipe with its source.

    Also print where this project deviates from it, what to expect of a run, and the published results.
    """
    with errors():
        from moco.explain import explain as find
        from moco.transfer.explain_row import explain_row

        found = explain_row(recipe) or find(recipe)
        print(json.dumps(found.to_dict()) if as_json else found)
