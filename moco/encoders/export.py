"""An encoder as a file for torchvision or timm, checked by loading it there."""

import os
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from moco.encoders import Encoder
from moco.encoders.counterpart import LIBRARIES, Call, counterpart
from moco.encoders.library import pooled
from moco.encoders.read import Weights, WeightsError
from moco.encoders.weights import load_encoder
from moco.files import write_atomically
from moco.recipe import EncoderSpec, unknown

TOLERANCE = 1e-5  # largest difference of a feature


def export(weights: Weights, *, to: str, out: Path, architecture: str | EncoderSpec | None = None) -> str:
    """Write `out`, a state dict that `to` ("torchvision" or "timm") loads with exactly the classifier missing.

    The file is loaded into the library's own network before it gets its name, and the features of random images are
    compared. An older `out` is replaced.

    Args:
        weights, architecture: as for `load_encoder`.
        out: ends in .safetensors, .pth or .pt.

    Returns:
        A sentence that says how to load it and how far the features are apart.

    Raises:
        WeightsError: the library has no such network, or does not get the same features out of it.
    """
    if to not in LIBRARIES:
        raise WeightsError(unknown("library", to, list(LIBRARIES)))
    if out.suffix not in (".safetensors", ".pth", ".pt"):
        raise WeightsError(f"export writes a file that ends in .safetensors, .pth or .pt, got '{out}'")
    encoder, config = load_encoder(weights, architecture=architecture)
    call = counterpart(config.encoder, to, config.data.size)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".tmp-{os.getpid()}-{out.name}")  # keeps the ending, by which timm reads
    try:
        write_atomically(aside, lambda file: _write(encoder.backbone.state_dict(), file, out.suffix))
        apart, missing = verify(aside, call, encoder, size=config.data.size)
        os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    data = config.data
    return (
        f"{out} is {call} but for {', '.join(missing)}: loaded there, the features of 2 random images differ by at "
        f"most {apart:.1g}.\nImages: shorter side to {data.eval_resize} pixels, central {data.size} x {data.size}, "
        f"RGB in [0, 1] less mean {data.mean}, over std {data.std}.\n\n"
        f"{call.program(str(out))}"
    )


def verify(file: Path, call: Call, encoder: Encoder, *, size: int) -> tuple[float, list[str]]:
    """Load `file` into the library's network. Returns how far its features are apart, and what was missing.

    Raises:
        WeightsError: a name besides the classifier's is missing, one is left over, or the features differ.
    """
    with torch.random.fork_rng(devices=[]):
        whole, bare = call.whole(), call.bare()
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    try:
        bare.load_state_dict(state)  # strict: so the classifier is all that the whole network misses
    except RuntimeError as error:
        raise WeightsError(f"{call} is another network: {error}") from None
    missing = whole.load_state_dict(state, strict=False).missing_keys
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        apart = (pooled(bare.eval()(images)) - encoder.eval().features(images)).abs().max().item()
    if not apart < TOLERANCE:
        raise WeightsError(f"{call} gives other features: {apart:.1g} apart, expected less than {TOLERANCE:g}")
    return apart, missing


def _write(state: dict[str, Tensor], file: IO[bytes], suffix: str) -> None:
    tensors = {key: value.contiguous().clone() for key, value in state.items()}
    if suffix == ".safetensors":
        file.write(save(tensors, metadata={"format": "pt"}))
    else:
        torch.save(tensors, file)
