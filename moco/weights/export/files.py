"""What all exports share: tensors as files have them, and the check in another library."""

from typing import IO

import torch
from safetensors.torch import save
from torch import Tensor

from moco.encoders import Encoder
from moco.encoders.check_network import pooled
from moco.weights.library_equivalent import Call
from moco.weights.loaded_weights import WeightsError

TOLERANCE = 1e-5  # largest difference of a feature


def plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own, contiguous, as both file formats want them."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}


def write_state(state: dict[str, Tensor], file: IO[bytes], suffix: str) -> None:
    """A bare state dict, as safetensors or torch.save by the ending."""
    if suffix == ".safetensors":
        file.write(save(plain(state), metadata={"format": "pt"}))
    else:
        torch.save(plain(state), file)


def verify(state: dict[str, Tensor], call: Call, encoder: Encoder, *, size: int) -> tuple[float, list[str]]:
    """Load `state` into the library's network. Returns how far its features are apart, and what was missing.

    Raises:
        WeightsError: a name besides the classifier's is missing, one is left over, or the features differ.
    """
    with torch.random.fork_rng(devices=[]):
        whole, bare = call.whole(), call.bare()
    try:
        bare.load_state_dict(state)  # strict: so the classifier is all that the whole network misses
    except RuntimeError as error:
        raise WeightsError(f"{call} is another network: {error}") from None
    missing = whole.load_state_dict(state, strict=False).missing_keys
    images = some_images(2, size)
    with torch.no_grad():
        apart = (pooled(bare.eval()(images)) - encoder.eval().features(images)).abs().max().item()
    if not apart < TOLERANCE:
        raise WeightsError(f"{call} gives other features: {apart:.1g} apart, expected less than {TOLERANCE:g}")
    return apart, missing


def some_images(n: int, size: int) -> Tensor:
    """n x 3 x size x size, random, the same every time."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))
