"""A fine-tuned detector to a folder and back: model.safetensors and config.json."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import load, save

from moco import __version__
from moco.encoders import build_headless
from moco.files import read_json, write_atomically, write_text
from moco.text import message_of
from moco.transfer.detections import Detections
from moco.transfer.models.build import build_detector
from moco.transfer.models.detector import Detector
from moco.transfer.models.resize import resize
from moco.transfer.models.scale_detections import for_metrics
from moco.transfer.recipe import TransferRecipe
from moco.transfer.scenes import SceneSet
from moco.weights.loaded_weights import WeightsError


@dataclass(frozen=True)
class TunedDetector:
    """A fine-tuned detector and what it finds."""

    detector: Detector
    recipe: TransferRecipe
    classes: tuple[str, ...]

    @torch.no_grad()
    def predict(self, image: UInt8[np.ndarray, "H W 3"]) -> Detections:
        """The objects in an RGB image, in its pixels, by falling score."""
        self.detector.eval()
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
        sizes = self.recipe.sizes
        resized, _ = resize(pixels, None, shorter=sizes.eval_shorter, longest=sizes.longest)
        return for_metrics(self.detector([resized], sizes=[image.shape[:2]])[0])


def save_detector(folder: Path, detector: Detector, *, recipe: TransferRecipe, scenes: SceneSet) -> None:
    """Write the detector's tensors, its recipe and its classes. Each file appears whole or not at all."""
    content = save({name: x.detach().cpu().contiguous().clone() for name, x in detector.state_dict().items()})
    config = {
        "made_by": f"momentum-contrast {__version__}", "recipe": json.loads(recipe.to_json()),
        "classes": scenes.classes, "keypoints": scenes.keypoint_names, "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "model.safetensors", lambda file: file.write(content))
    write_text(folder / "config.json", json.dumps(config, indent=1) + "\n")


def load_detector(folder: Path) -> TunedDetector:
    """The detector that `save_detector` wrote, on the CPU. Raises WeightsError."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not {"recipe", "classes", "keypoints", "sha256"} <= config.keys():
        raise WeightsError(f"{folder} has no config.json of a fine-tuned detector: name the folder model/ of a run")
    try:
        content = (folder / "model.safetensors").read_bytes()
    except OSError as error:
        raise WeightsError(message_of(error)) from error
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise WeightsError(f"{folder / 'model.safetensors'} is damaged: its SHA-256 is not the one in config.json")
    recipe = TransferRecipe.from_json(json.dumps(config["recipe"]))
    classes = tuple(str(name) for name in config["classes"])
    detector = build_detector(
        build_headless(recipe.encoder).backbone, recipe.task, recipe.arch, len(classes), norm=recipe.bn,
        settings=recipe.settings(len(classes), len(config["keypoints"])), mean=recipe.mean, std=recipe.std,
    )  # fmt: skip
    try:
        detector.load_state_dict(load(content))
    except RuntimeError as error:
        raise WeightsError(f"{folder} holds other tensors than its recipe's detector has: {error}") from error
    return TunedDetector(detector.eval(), recipe, classes)
