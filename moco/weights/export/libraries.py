"""Export a state dict for torchvision or timm: their network loads it, and only its classifier is missing."""

from pathlib import Path

from moco.atomic_output import stage_paths
from moco.files import write_atomically
from moco.recipe import EncoderSpec
from moco.weights.encoder_folder import load_encoder
from moco.weights.export.files import verify, write_state
from moco.weights.library_equivalent import library_equivalent
from moco.weights.loaded_weights import Config, Weights
from moco.weights.model_card import describe_scale
from moco.weights.tensors import read_tensors


def to_torchvision(weights: Weights, out: Path, *, architecture: str | EncoderSpec | None, overwrite: bool) -> str:
    return _to_library("torchvision", weights, out, architecture, overwrite)


def to_timm(weights: Weights, out: Path, *, architecture: str | EncoderSpec | None, overwrite: bool) -> str:
    return _to_library("timm", weights, out, architecture, overwrite)


def _to_library(
    library: str, weights: Weights, out: Path, architecture: str | EncoderSpec | None, overwrite: bool
) -> str:
    encoder, config = load_encoder(weights, architecture=architecture)
    call = library_equivalent(config.encoder, library, config.data.size)
    with stage_paths([out], overwrite=overwrite) as (aside,):
        write_atomically(aside, lambda file: write_state(encoder.backbone.state_dict(), file, out.suffix))
        apart, missing = verify(read_tensors(aside), call, encoder, size=config.data.size)
    return (
        f"{out} is {call} without {', '.join(missing)}. Its features of 2 random images, loaded by {library}, differ "
        f"by at most {apart:.1g}.\n{describe_images(config)}\n\n{call.program(str(out))}"
    )


def describe_images(config: Config) -> str:
    """A sentence on how the encoder's images must be prepared."""
    data = config.data
    return (
        f"Images: resize the shorter side to {data.eval_resize} pixels, crop the central {data.size} x {data.size}, "
        f"{describe_scale(data)}, subtract mean {data.mean}, divide by std {data.std}."
    )
