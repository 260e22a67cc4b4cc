"""A folder as timm keeps its networks on the Hugging Face hub: config.json and model.safetensors."""

import os
import shutil
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf

from moco.encoders.probe import pooled
from moco.recipe import EncoderSpec
from moco.weights.encoder_folder import load_encoder
from moco.weights.export.files import TOLERANCE, plain, some_images
from moco.weights.library_equivalent import counterpart
from moco.weights.loaded import Weights, WeightsError


def to_hf(weights: Weights, out: Path, *, architecture: str | EncoderSpec | None) -> str:
    """Write the folder `out`, which must be new or empty, for timm.create_model("local-dir:...") or the hub."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WeightsError(f"export to hf writes a new or an empty folder, and {out} is neither: name another")
    encoder, config = load_encoder(weights, architecture=architecture)
    data, call = config.data, counterpart(config.encoder, "timm", config.data.size)
    with torch.random.fork_rng(devices=[]):
        network = call.bare()
    network.load_state_dict(plain(encoder.backbone.state_dict()))
    look = {
        "input_size": (3, data.size, data.size), "mean": data.mean, "std": data.std,
        "crop_pct": data.size / data.eval_resize, "interpolation": "bilinear", "tag": "momentum_contrast",
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".tmp-{os.getpid()}-{out.name}")
    try:
        save_for_hf(
            network, str(aside), model_args={"num_classes": 0} | call.arguments,
            model_config={"pretrained_cfg": look}, safe_serialization=True,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            back = timm.create_model(f"local-dir:{aside}", pretrained=True).eval()
        x = some_images(2, data.size)
        with torch.no_grad():
            apart = (pooled(back(x)) - encoder.features(x)).abs().max().item()
        if not apart < TOLERANCE:
            raise WeightsError(f"timm gives other features: {apart:.1g} apart, expected less than {TOLERANCE:g}")
        os.rename(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return (
        f"{out} is {call} for timm and the Hugging Face hub: loaded there, the features of 2 random images differ by "
        f'at most {apart:.1g}.\n\nimport timm\nmodel = timm.create_model("local-dir:{out}", pretrained=True)'
    )
