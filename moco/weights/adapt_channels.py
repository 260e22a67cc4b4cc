"""Weights of a network for RGB, for the same network on images with other channels."""

from dataclasses import replace

from torch import nn

from moco.encoders.input_channels import first_convolution
from moco.weights.loaded_weights import LoadedWeights, WeightsError
from moco.weights.tensor_names import bare_names


def adapt_channels(found: LoadedWeights, network: nn.Module, *, channels: int) -> tuple[LoadedWeights, str]:
    """`found` for `network`, which takes `channels`, and a sentence on what was done; unchanged where both are alike.

    The first convolution's three filters are repeated in turn and scaled by 3 / channels, or summed for one channel
    (timm's rule). f_k, predictor and queue are left out: they belong to other images.

    Raises:
        WeightsError: weights for other than 3 channels, which are not the network's.
    """
    found = found.to_train_on()
    own = bare_names(network.state_dict(), "")
    name = next(bare for key, bare in own.items() if key == f"{first_convolution(network)}.weight")
    weight = found.backbone.get(name)
    if weight is None or weight.ndim != 4 or weight.shape[1] == channels:
        return found, ""
    if weight.shape[1] != 3:
        raise WeightsError(
            f"{found.where} is for images with {weight.shape[1]} channels, and these have {channels}: give weights for "
            f"3 or {channels} channels"
        )
    from timm.models import adapt_input_conv  # only here: timm takes a second to import

    backbone = found.backbone | {name: adapt_input_conv(channels, weight)}
    return replace(found, backbone=backbone, f_k={}, predictor={}, queue={}), (
        f"Its first convolution ({name}) is for RGB: its filters were repeated for {channels} channels, and scaled"
    )
