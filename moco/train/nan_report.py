"""How many steps that are not finite a run may skip, and the report that it writes when it stops at one."""

import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moco.distributed import gather, on_main, world_size
from moco.files import read_json, write_atomically, write_json
from moco.recipe_base import RecipeBase
from moco.recipe_error import RecipeError
from moco.train.nan_guard import DiscardedStep

FILES = ("facts.json", "checkpoint.pt")  # of a report


def is_nan_folder(name: str) -> bool:
    """Whether `name` is a name of a folder that `write_nan_report` creates."""
    return re.fullmatch("step_[0-9]{8,}", name) is not None


def is_nan_facts(file: Path) -> bool:
    """Whether `write_nan_report` has written this file."""
    facts = read_json(file)
    return isinstance(facts, dict) and {"step", "not_finite", "image_ids", "random_numbers"} <= facts.keys()


def allowed_skips(on_nan: str) -> int:
    """The number of steps that a run may skip: 0 for `stop`, N for `skip:N`. Raises RecipeError for other values."""
    what, _, count = on_nan.partition(":")
    if on_nan == "stop":
        return 0
    if what != "skip" or not count.isdecimal() or not int(count):
        raise RecipeError(
            f"--on-nan expects stop, or skip:N with the number of steps that may be skipped, got '{on_nan}'"
        )
    return int(count)


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
