"""`moco.load`: load a pre-trained encoder, or a model that was fine-tuned by `moco transfer`."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from moco.device import pick_device
from moco.evaluate.features import load_pretrained as load_pretrained
from moco.recipe import EncoderSpec
from moco.weights.loaded_weights import Weights
from moco.weights.own_files import check_network_is_of_run
from moco.weights.tuned_folder import find_tuned_folder


def load(
    weights: Weights,
    *,
    model: nn.Module | None = None,
    architecture: str | EncoderSpec | None = None,
    device: str | torch.device = "auto",
    prefix: str = "",
) -> Any:
    """Load a pre-trained encoder, or a model that was fine-tuned by `moco transfer`.

    Args:
        weights: a run folder, an encoder folder, a folder of `moco import`, a weights file of any format that `moco
            import` reads, `torchvision/NAME`, `timm/NAME` or `fair:NAME`. For a fine-tuned model: the run folder of
            a trial, or model/ in it.
        model: your own backbone, if the weights are those of one.
        architecture: the network, if it cannot be inferred from the weights file.
        prefix: the prefix of the encoder's tensor names, if it cannot be inferred from a file with several networks.

    Returns:
        A `Pretrained` with `embed` and `features`, or a `TunedModel` with `predict`.

    Raises:
        WeightsError: the weights do not exist, cannot be read, or are not of this network. RecipeError: the device does
            not exist.
    """
    folder = find_tuned_folder(weights)
    if folder is None:
        return load_pretrained(weights, model=model, architecture=architecture, device=device, prefix=prefix)
    if folder != Path(weights):
        check_network_is_of_run(Path(weights), folder.name)
    from moco.transfer.saved_model import load_model  # imported here, because encoders do not need detection libraries

    return load_model(folder, device=pick_device(device))
