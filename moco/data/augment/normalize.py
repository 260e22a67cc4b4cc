"""From bytes to normalized float32."""

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor


def normalize(
    crops: UInt8[Tensor, "N 3 S S"], *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "N 3 S S"]:
    """(crops / 255 - mean) / std in float32, channel by channel."""
    shift, scale = (row.to(crops.device, non_blocking=True) for row in shift_and_scale(mean, std))
    return crops.float().sub_(shift).mul_(scale)


def shift_and_scale(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tuple[Float32[Tensor, "3 1 1"], Float32[Tensor, "3 1 1"]]:
    """(shift, scale): a byte b becomes (b - shift) * scale."""
    return torch.tensor(mean).mul(255).view(3, 1, 1), torch.tensor(std).mul(255).reciprocal().view(3, 1, 1)
