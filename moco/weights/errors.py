"""The error for weights that cannot be read or written. Imports no torch, so a command can check arguments fast."""

from moco.recipe import RecipeError


class WeightsError(RecipeError):
    """Weights that do not exist, cannot be read, or belong to another network."""


def no_such_weights(weights: object) -> WeightsError:
    """The error for weights that are neither a path nor a known name."""
    return WeightsError(
        f"there are no weights '{weights}': expected a run folder, an encoder folder, a .pt, .pth, .pth.tar or "
        ".safetensors file, torchvision/NAME or timm/NAME for their pretrained weights, or fair:NAME (moco weights)"
    )


def no_encoder_in(folder: object) -> WeightsError:
    """The error for a folder that is neither a run nor an encoder."""
    return WeightsError(
        f"{folder} is neither a run (encoder/, checkpoints/step_*.pt) nor an encoder (model.safetensors, config.json)"
    )
