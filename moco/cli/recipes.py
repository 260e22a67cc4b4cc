"""moco recipes, moco explain."""

import json
from typing import Annotated

import typer

from moco.cli.errors import errors
from moco.cli.options import Json


def recipes(as_json: Json = False) -> None:
    """List the recipes, each with what it is of and a result that its authors printed."""
    with errors():
        from moco.explain import listed

        rows = listed()
        if as_json:
            print(json.dumps(rows))
            return
        for row in rows:
            best = row["published"]
            print(f"{row['name']:<22}{row['what']}" + (f" {best['measure']}: {best['value']:g} %" if best else ""))


def explain(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, a recipe.json, or a run folder.")],
    as_json: Json = False,
) -> None:
    """Each number of a recipe with its source, where this project deviates from it, and the published results."""
    with errors():
        from moco.explain import explain as find

        found = find(recipe)
        print(json.dumps(found.to_dict()) if as_json else found)
