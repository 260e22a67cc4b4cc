"""Save and load a fine-tuned model: model.safetensors and config.json."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import load, save
from torch import nn

from moco import __version__
from moco.encoders import build_headless
from moco.files import read_json, refuse_special
from moco.text import message_of
from moco.transfer.recipe import TransferRecipe
from moco.transfer.task_interface import Labels
from moco.transfer.task_registry import task_named
from moco.weights.loaded_weights import WeightsError


@dataclass(frozen=True)
class TunedModel:
    """A fine-tuned model, with its recipe and the names of what it predicts."""

    model: nn.Module
    recipe: TransferRecipe
    labels: Labels

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.classes

    @torch.no_grad()
    def predict(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """The prediction for an RGB image of any size: see `predict` of its task."""
        return task_named(self.recipe.task).predict(self.model.eval(), self.recipe, image)


def model_files(model: nn.Module, *, recipe: TransferRecipe, labels: Labels) -> dict[str, bytes]:
    """The contents of model.safetensors and config.json: the model's tensors, its recipe and its classes."""
    content = save({name: x.detach().cpu().contiguous().clone() for name, x in model.state_dict().items()})
    config = {
        "made_by": f"momentum-contrast {__version__}", "recipe": json.loads(recipe.to_json()),
        "classes": labels.classes, "keypoints": labels.keypoints, "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    return {"model.safetensors": content, "config.json": (json.dumps(config, indent=1) + "\n").encode()}


def load_model(folder: Path, *, device: torch.device | None = None) -> TunedModel:
    """Load a model that was written by `model_files`, to `device` or the CPU. Raises WeightsError."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not {"recipe", "classes", "keypoints", "sha256"} <= config.keys():
        raise WeightsError(
            f"{folder} has no config.json of a fine-tuned model: name the folder model/ of a transfer run"
        )
    try:
        refuse_special(folder / "model.safetensors")
        content = (folder / "model.safetensors").read_bytes()
    except OSError as error:
        raise WeightsError(message_of(error)) from error
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise WeightsError(f"{folder / 'model.safetensors'} is damaged: its SHA-256 is not the one in config.json")
    task = task_named(str(config["recipe"].get("task")))
    recipe = task.recipe.from_json(json.dumps(config["recipe"]))
    labels = Labels(tuple(map(str, config["classes"])), tuple(map(str, config["keypoints"])))
    model = task.build(build_headless(recipe.encoder, size=recipe.encoder_size), recipe, labels)
    try:
        model.load_state_dict(load(content))
    except RuntimeError as error:
        raise WeightsError(f"{folder} does not hold the tensors of its recipe's model: {error}") from error
    return TunedModel(model.to(device or "cpu").eval(), recipe, labels)
