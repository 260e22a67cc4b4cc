"""The networks of a run at a checkpoint, or before its first step."""

from typing import Any

import torch
from torch import nn

from moco.method import Contrast
from moco.recipe import Recipe
from moco.train import checkpoint
from moco.train.build import contrast_for
from moco.train.run_folder import RunFolder
from moco.weights.own_files import find_foreign, read_run_id
from moco.weights.read_checkpoint import find_other_run, intact, step_in


def build_untrained(
    recipe: Recipe, device: torch.device, *, num_images: int, model: nn.Module | None = None
) -> Contrast:
    """Encoders and dictionary before the first step."""
    return contrast_for(recipe, device, num_images=num_images, model=model, init=None, say=lambda _: None)


def find_intact_steps(run: RunFolder, *, count: int) -> list[int]:
    """The steps of the newest `count` checkpoints that are intact and of this run, in order; []: there are none.

    Warns of each that cannot be used. Raises CheckpointError if none can.
    """
    if not checkpoint.checkpoint_files(run.checkpoints):  # removed to save space: none is damaged
        return []
    files = intact(run.checkpoints, count=count, accepts=lambda file: find_foreign(run.path, file))
    return sorted(step for file in files if (step := step_in(file.name)) is not None)


def read_state(run: RunFolder, step: int) -> dict[str, Any]:
    """The content of the checkpoint of `step`.

    Raises:
        CheckpointError: it is damaged, missing or of another run.
    """
    file = run.checkpoints / checkpoint.checkpoint_name(step)
    checkpoint.check_intact(file)
    payload = checkpoint.read_checkpoint(file)
    if reason := find_other_run(payload, read_run_id(run.path)):
        raise checkpoint.CheckpointError(f"the checkpoint {file} is {reason}: restore the run's own one from a backup")
    return payload


def restore_networks(
    run: RunFolder, recipe: Recipe, device: torch.device, *, num_images: int, step: int, model: nn.Module | None = None
) -> Contrast:
    """Encoders and dictionary of the checkpoint of `step`. Raises CheckpointError if it is damaged or missing."""
    contrast = build_untrained(recipe, device, num_images=num_images, model=model)
    contrast.load_state_dict(read_state(run, step)["state"]["model"])
    return contrast
