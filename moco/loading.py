"""`moco.load`: an encoder that was pre-trained, or a model that was fine-tuned, ready to use."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from moco.device import pick_device
from moco.evaluate.features import load as load_pretrained
from moco.recipe import EncoderSpec
from moco.weights.loaded_weights import Weights
from moco.weights.own_files import check_network_is_of_run
from moco.weights.tuned_folder import tuned_folder


def load(
    weights: Weights,
    *,
    model: nn.Module | None = None,
    architecture: str | EncoderSpec | None = None,
    device: str | torch.device = "auto",
    prefix: str = "",
) -> Any:
    """A pre-trained encoder, or a model that `moco transfer` fine-tuned, ready to be used.

    Args:
        weights: a run folder, an encoder folder, an imported one, a weights file of any format that `moco import`
            reads, `torchvision/NAME`, `timm/NAME` or `fair:NAME`; the run folder of a fine-tuned model, or its model/.
        model: your own backbone, when the weights are of one.
        architecture: the network, if a file of weights does not show it.
        prefix: the prefix of the encoder's tensors, if a file of several networks does not show it.

    Returns a `Pretrained` with `embed` and `features`, or a `TunedModel` with `predict`.

    Raises:
        WeightsError: the weights do not exist, cannot be read, or are not of that network. RecipeError: no such device.
    """
    folder = tuned_folder(weights)
    if folder is None:
        return load_pretrained(weights, model=model, architecture=architecture, device=device, prefix=prefix)
    if folder != Path(weights):
        check_network_is_of_run(Path(weights), folder.name)
    from moco.transfer.saved_model import load_model  # detectors and their libraries, which an encoder does not need

    return load_model(folder, device=pick_device(device))
