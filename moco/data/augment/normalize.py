"""From bytes, or bands in [0, 1], to normalized float32."""

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor


def normalize(
    crops: UInt8[Tensor, "N 3 S S"] | Float32[Tensor, "N c S S"], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "N c S S"]:
    """(crops / 255 - mean) / std of bytes, (crops - mean) / std of bands, in float32, channel by channel."""
    shift, scale = (row.to(crops.device, non_blocking=True) for row in shift_and_scale(mean, std, crops.dtype))
    return crops.to(torch.float32, copy=True).sub_(shift).mul_(scale)


def shift_and_scale(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype
) -> tuple[Float32[Tensor, "c 1 1"], Float32[Tensor, "c 1 1"]]:
    """(shift, scale): a value x of that type becomes (x - shift) * scale."""
    most = 255 if dtype == torch.uint8 else 1
    shift, scale = torch.tensor(mean).mul(most), torch.tensor(std).mul(most).reciprocal()
    return shift.view(-1, 1, 1), scale.view(-1, 1, 1)
