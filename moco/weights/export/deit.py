"""Export a ViT for DeiT's fine-tuning script: {"model": the encoder without a head}, for its option --resume."""

from pathlib import Path

import torch

from moco.atomic_output import stage_paths
from moco.files import write_atomically
from moco.recipe import EncoderSpec
from moco.weights.encoder_folder import load_encoder
from moco.weights.export.files import plain, verify
from moco.weights.library_equivalent import library_equivalent
from moco.weights.loaded_weights import Weights, WeightsError
from moco.weights.official.layout import is_vit
from moco.weights.tensors import read_tensors


def to_deit(weights: Weights, out: Path, *, architecture: str | EncoderSpec | None, overwrite: bool) -> str:
    encoder, config = load_encoder(weights, architecture=architecture)
    state = plain(encoder.backbone.state_dict())
    if not is_vit(state):
        raise WeightsError(f"DeiT's script expects a ViT, got {config.encoder.name}: export it --to timm")
    call = library_equivalent(config.encoder, "timm", config.data.size)
    with stage_paths([out], overwrite=overwrite) as (aside,):
        write_atomically(aside, lambda file: torch.save({"model": state}, file))
        apart, missing = verify(read_tensors(aside)["model"], call, encoder, size=config.data.size)
    return (
        f"{out}: give it to DeiT's script as --resume, and load it with strict=False, as {', '.join(missing)} are "
        f"missing. The network must be\n\n{call}\n\nIts features of 2 random images differ by at most {apart:.1g}."
        + (" DeiT's own deit_small has 6 heads: the file loads into it too, but gives wrong features."
           if config.encoder.name == "vit_small" else "")
    )  # fmt: skip
