"""Recognise the folder of a model that `moco transfer` fine-tuned: it is no encoder, and its task reads it."""

import os
from pathlib import Path
from typing import Any

from moco.files import read_json
from moco.weights.loaded_weights import WeightsError


def tuned_folder(weights: Any) -> Path | None:
    """The folder with a fine-tuned model: `weights`, or model/ in it; None if there is none."""
    if not isinstance(weights, str | os.PathLike):
        return None
    for folder in (Path(weights), Path(weights) / "model"):
        config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
        if isinstance(config, dict) and {"recipe", "classes", "keypoints"} <= config.keys():
            return folder
    return None


def refuse_tuned(weights: Any) -> None:
    """Raise WeightsError for the folder of a fine-tuned model, where an encoder is expected."""
    if (folder := tuned_folder(weights)) is not None:
        raise WeightsError(
            f"{folder} is a fine-tuned model, and an encoder is expected: name the pre-training run that it started "
            f'from; moco.load("{folder}").predict(image) uses the model itself'
        )
