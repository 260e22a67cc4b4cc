"""moco views."""

from pathlib import Path
from typing import Annotated

import typer

from moco.cli import early_checks, options
from moco.cli.errors import errors


def views(
    data: options.Images,
    out: Annotated[Path, typer.Option(metavar="PATH", help="The picture to write (PNG).")] = Path("views.png"),
    recipe: options.RecipeName = "auto",
    views_: options.Views = None,
    bands: options.Bands = False,
    settings: options.Settings = None,
    seed: options.Seed = None,
    overwrite: options.OverwriteFiles = False,
    images: Annotated[int, typer.Option(min=1, max=50, metavar="N", help="Images to show.")] = 8,
) -> None:
    """Draw views of some images, as training would make them.

    Each row is an image, then pairs of query and key. Check that a person could still see that
    both views of a pair show the same thing, and could tell two images apart.
    """
    with errors():
        from moco.recipes import parse_settings
        from moco.recipes.domain_views import DOMAINS, changes_for

        changes = changes_for(views_) | parse_settings(settings or []) | ({} if seed is None else {"seed": seed})
        early_checks.check_recipe(recipe, changes)
        early_checks.check_sources(data)
        early_checks.check_picture(out, overwrite=overwrite)
        from moco.train.view_sheet import write_view_sheet

        write_view_sheet(data, out, recipe=recipe, changes=changes, bands=bands, count=images, overwrite=overwrite)
        about = f": {DOMAINS[views_].reason}" if views_ is not None else ""
        print(f"{out}{about}")
