"""Write the sheet of views that a recipe would make of some images."""

from pathlib import Path
from typing import Any

import torch

from moco.atomic_output import open_staged_files, refuse_existing
from moco.data.augment import cpu
from moco.data.sources.open import Sources, open_images
from moco.recipe import Recipe
from moco.report.view_sheet import draw_view_sheet
from moco.train.resolve_recipe import band_changes, resolve


def write_view_sheet(
    data: Sources,
    out: Path,
    *,
    recipe: str | Recipe = "auto",
    changes: dict[str, Any] | None = None,
    bands: bool = False,
    count: int = 8,
    overwrite: bool = False,
) -> None:
    """Write the PNG `out`: `count` images, each beside pairs of the views that a run would make of it.

    Raises:
        RecipeError: an unknown recipe or setting, or `out` exists and `overwrite` is not set.
        DataError: no image that can be read. OSError: `out` cannot be written.
    """
    refuse_existing([out], overwrite=overwrite)
    images = open_images(data, bands=bands)
    changes = (band_changes(images) if bands else {}) | (changes or {})
    chosen = resolve(recipe, images, torch.device("cpu"), model=None, changes=changes)
    cpu.kernels(wait=True)
    sheet = draw_view_sheet(images, chosen.data, seed=chosen.seed, rows=count)
    with open_staged_files([out], overwrite=overwrite) as (file,):
        sheet.save(file, "PNG")
