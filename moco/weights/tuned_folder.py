"""Recognise the folder of a model that `moco transfer` has fine-tuned. It is not an encoder folder."""

import os
from pathlib import Path
from typing import Any

from moco.files import read_json
from moco.weights.loaded_weights import WeightsError


def find_tuned_folder(weights: Any) -> Path | None:
    """The folder with the fine-tuned model: `weights` itself, or model/ in it; None if there is none."""
    if not isinstance(weights, str | os.PathLike):
        return None
    for folder in (Path(weights), Path(weights) / "model"):
        config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
        if isinstance(config, dict) and {"recipe", "classes", "keypoints"} <= config.keys():
            return folder
    return None


def refuse_tuned(weights: Any) -> None:
    """Raise WeightsError if `weights` is the folder of a fine-tuned model, because an encoder is expected."""
    if (folder := find_tuned_folder(weights)) is not None:
        raise WeightsError(
            f"{folder} is a fine-tuned model, and an encoder is expected: name the pre-training run that it started "
            f'from. To use the fine-tuned model: moco.load("{folder}").predict(image)'
        )
