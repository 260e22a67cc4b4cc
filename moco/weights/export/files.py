"""What several exports share: write a state dict, and check it in another library."""

from typing import IO

import torch
from safetensors.torch import save
from torch import Tensor

from moco.encoders import Encoder
from moco.encoders.check_network import pool_features
from moco.weights.library_equivalent import Call
from moco.weights.loaded_weights import WeightsError

EXPORT_TOLERANCE = 1e-5  # largest difference of a feature


def plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU. safetensors takes no tensors that share memory."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}


def write_state(state: dict[str, Tensor], file: IO[bytes], suffix: str) -> None:
    """Write a bare state dict: by safetensors or torch.save, depending on `suffix`."""
    if suffix == ".safetensors":
        file.write(save(plain(state), metadata={"format": "pt"}))
    else:
        torch.save(plain(state), file)


def verify(state: dict[str, Tensor], call: Call, encoder: Encoder, *, size: int) -> tuple[float, list[str]]:
    """Load `state` into the library's network. Returns the largest difference of a feature, and the missing names.

    Raises:
        WeightsError: names other than the classifier's are missing, names are left over, or the features differ.
    """
    with torch.random.fork_rng(devices=[]):
        whole, bare = call.build(), call.build_headless()
    try:
        bare.load_state_dict(state)  # strict, so below only the classifier can be missing
    except RuntimeError as error:
        raise WeightsError(f"the weights do not fit {call}: {error}") from None
    missing = whole.load_state_dict(state, strict=False).missing_keys
    images = some_images(2, size, encoder.spec.channels)
    with torch.no_grad():
        apart = (pool_features(bare.eval()(images)) - encoder.eval().features(images)).abs().max().item()
    if not apart < EXPORT_TOLERANCE:
        raise WeightsError(
            f"{call} gives other features: they differ by {apart:.1g}, expected less than {EXPORT_TOLERANCE:g}"
        )
    return apart, missing


def some_images(n: int, size: int, channels: int) -> Tensor:
    """Random images n x channels x size x size, the same in every call."""
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))
