"""The report that a run writes when it stops at a step that is not finite."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moco.distributed import gather, on_main, world_size
from moco.files import write_atomically, write_json
from moco.recipe_base import RecipeBase
from moco.train.nan_guard import DiscardedStep


def write_nan_report(
    folder: Path,
    discarded: DiscardedStep,
    *,
    recipe: RecipeBase,
    values: dict[str, float],
    names: Sequence[str],
    checkpoint: Path | None,
) -> Path | None:
    """Write what is needed to repeat the step, and return the folder on rank 0. Every rank calls it.

    facts.json has step, images, seed and losses ("nan" or "inf" if one is not finite). checkpoint.pt is a copy of
    `checkpoint`, the state before the step.

    Raises:
        OSError: the report cannot be written.
    """
    ids = gather(discarded.ids.cpu()).tolist()
    if not on_main():
        return None
    place = folder / f"step_{discarded.step:08d}"
    if folder.is_symlink() or place.is_symlink():  # never write through a link
        return None
    place.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "step": discarded.step, "not_finite": discarded.parts, "image_ids": ids, "images": [names[i] for i in ids],
        "seed": recipe.seed, "random_numbers": "functions of (seed, step) and (seed, epoch, image id)",
        "ranks": world_size(), "lr": values["lr"],
        "losses": [loss if math.isfinite(loss) else str(loss) for loss in discarded.losses],  # JSON has no NaN
        "recipe": json.loads(recipe.to_json()),
    }  # fmt: skip
    write_json(place / "facts.json", facts)
    if checkpoint is not None:
        with checkpoint.open("rb") as source:
            write_atomically(place / "checkpoint.pt", lambda file: shutil.copyfileobj(source, file))
    return place


def next_steps(place: Path | None, advice: str) -> str:
    """The end of the message about a discarded step: where the report is, and what the user can do."""
    report = "" if place is None else f" Images, seed, losses and the state before it are in {place}."
    choices = "The same command repeats the step; --on-nan skip:10 skips such steps."
    return f"The step was discarded.{report} {choices} {advice}"
