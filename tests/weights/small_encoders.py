"""Small encoders and their checkpoints, and an object that must not be unpickled."""

import os
from pathlib import Path

import torch

from moco.encoders import Encoder, build
from moco.recipe import DataSpec, EncoderSpec, Recipe

TINY = EncoderSpec(name="resnet10", width=0.0625, stem="3x3/2", head="mlp", dim=8)
RECIPE = Recipe(
    name="tiny", source="a test", encoder=TINY, data=DataSpec(size=32, eval_resize=36, mean=(0.1, 0.2, 0.3))
)


def trained(spec: EncoderSpec = TINY, *, seed: int = 0, size: int | None = None) -> Encoder:
    """An encoder whose BN statistics have moved."""
    torch.manual_seed(seed)
    encoder = build(spec, size=size)
    encoder.train()(torch.randn(4, 3, 64, 64))
    return encoder.eval()


def write_checkpoint(file: Path, encoder: Encoder, *, step: int, recipe: Recipe = RECIPE) -> Path:
    """A checkpoint as a run writes it, with f_k and a queue beside f_q."""
    model = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    model |= {f"key_encoder.module.{key}": torch.zeros_like(value) for key, value in encoder.state_dict().items()}
    model["dictionary.keys"] = torch.zeros(16, 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"format": 1, "recipe": recipe.to_json(), "state": {"model": model, "clock": {"step": step}}}, file)
    return file


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self.proof}'",)
