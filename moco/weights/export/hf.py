"""Export a folder as timm has them on the Hugging Face hub: config.json and model.safetensors."""

import os
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import save_for_hf
from torch import nn

from moco.atomic_output import make_staging_folder
from moco.encoders.check_network import pool_features
from moco.recipe import EncoderSpec
from moco.weights.encoder_folder import load_encoder
from moco.weights.export.files import EXPORT_TOLERANCE, plain, some_images
from moco.weights.library_equivalent import library_equivalent
from moco.weights.loaded_weights import Weights, WeightsError


def to_hf(weights: Weights, out: Path, *, architecture: str | EncoderSpec | None, overwrite: bool) -> str:
    """Write the folder `out`, which must be new or empty, for timm.create_model("local-dir:...") or the hub."""
    encoder, config = load_encoder(weights, architecture=architecture)
    data, call = config.data, library_equivalent(config.encoder, "timm", config.data.size)
    with torch.random.fork_rng(devices=[]):
        network = call.build_headless()
    network.load_state_dict(plain(encoder.backbone.state_dict()))
    look = {
        "input_size": (data.channels, data.size, data.size), "mean": data.mean, "std": data.std,
        "crop_pct": data.size / data.eval_resize, "interpolation": "bilinear", "tag": "momentum_contrast",
    }  # fmt: skip
    with make_staging_folder(out) as aside:
        _save_for_hub(network, aside, model_args={"num_classes": 0} | call.arguments, look=look)
        with torch.random.fork_rng(devices=[]):
            back = timm.create_model(f"local-dir:{aside}", pretrained=True).eval()
        x = some_images(2, data.size, data.channels)
        with torch.no_grad():
            apart = (pool_features(back(x)) - encoder.features(x)).abs().max().item()
        if not apart < EXPORT_TOLERANCE:
            raise WeightsError(
                f"timm gives other features: they differ by {apart:.1g}, expected less than {EXPORT_TOLERANCE:g}"
            )
        os.rename(aside, out)  # replaces at most an empty folder
    return (
        f"{out} is {call} for timm and the Hugging Face hub. Its features of 2 random images, loaded by timm, differ "
        f'by at most {apart:.1g}.\n\nimport timm\nmodel = timm.create_model("local-dir:{out}", pretrained=True)'
    )


def _save_for_hub(network: nn.Module, folder: Path, *, model_args: dict[str, Any], look: dict[str, Any]) -> None:
    """Write the folder. Raises OSError if it cannot be written, in place of safetensors' own error."""
    try:
        save_for_hf(
            network, str(folder), model_args=model_args, model_config={"pretrained_cfg": look}, safe_serialization=True
        )
    except SafetensorError as error:
        raise OSError(f"{folder} cannot be written: {error}") from None
