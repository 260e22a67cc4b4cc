"""Check the images and the folder of an ablation. Imports no torch, so wrong ones are refused at once."""

import os
from collections.abc import Sequence
from pathlib import Path

from moco.data.sources.demo import demo_data
from moco.files import read_json
from moco.recipe import RecipeError

Places = str | Path | Sequence[str | Path]


def choose_data(scale: str, data: Places | None, eval_data: str | Path | None) -> tuple[Places, str | Path]:
    """Images to train on, and labelled ones. Raises RecipeError."""
    check_data_of_scale(scale, data, eval_data)
    if data is None or eval_data is None:
        folder = demo_data()
        return folder / "train", folder
    return data, eval_data


def check_data_of_scale(scale: str, data: Places | None, eval_data: str | Path | None) -> None:
    """Raise RecipeError if the scale demo is given images, or another scale lacks some."""
    if scale == "demo" and (data is not None or eval_data is not None):
        raise RecipeError("the scale demo has its own images: leave --data and --eval-data out, or give --scale cifar")
    if scale != "demo" and (data is None or eval_data is None):
        raise RecipeError(
            f"the scale {scale} expects --data, images to train on, and --eval-data, a folder with train/ and test/ "
            "(or val/) of class folders; --dry-run lists the runs"
        )


def check_results_replaceable(folder: Path, name: str) -> None:
    """Raise RecipeError if a file that the ablation would replace was not written by one."""
    known = read_json(folder / f"{name}.json")
    written = isinstance(known, dict) and {"rows", "paper"} <= known.keys()
    for file in (folder / f"{name}{ending}" for ending in (".json", ".md", ".png")):
        if os.path.lexists(file) and not written:
            raise RecipeError(
                f"{file} exists and was not written by moco ablate, which would replace it: give another --out"
            )
