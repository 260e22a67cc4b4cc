"""The error of everything that reads or writes weights. Imports no torch, so that a command can refuse at once."""

from moco.recipe import RecipeError


class WeightsError(RecipeError):
    """Weights that are not there, cannot be read, or are of another network."""


def no_such_weights(weights: object) -> WeightsError:
    """The error for weights that are neither a path nor a name that is known."""
    return WeightsError(
        f"there are no weights '{weights}': expected a run folder, an encoder folder, a .pt, .pth, .pth.tar or "
        ".safetensors file, torchvision/NAME or timm/NAME for their pretrained weights, or fair:NAME (moco weights)"
    )
