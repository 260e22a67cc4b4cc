"""Features made of numbers, and small encoders."""

import numpy as np
import torch

from moco.encoders import Encoder, build_headless
from moco.evaluate.features import Features
from moco.recipe import DataSpec, EncoderSpec

SPEC = EncoderSpec(name="resnet10", stem="3x3/2", width=0.0625)
DATA = DataSpec(size=16, eval_resize=18, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
CPU = torch.device("cpu")


def features_of(x: np.ndarray, labels: np.ndarray | None, *, classes: int = 0) -> Features:
    known = None if labels is None else torch.as_tensor(labels, dtype=torch.int64)
    names = [f"{i}.png" for i in range(len(x))]
    number = 0 if labels is None else classes or int(labels.max()) + 1
    return Features(
        torch.as_tensor(x, dtype=torch.float32), known, [f"c{i}" for i in range(number)], names, torch.arange(len(x))
    )


def clouds(n: int, *, classes: int = 4, dims: int = 12, noise: float = 1.0, seed: int = 0) -> Features:
    """`n` points around a centre for each class, which is the same for every seed; classes in turn."""
    centres = np.random.default_rng(99).normal(size=(classes, dims))
    labels = np.arange(n) % classes
    return features_of(centres[labels] + noise * np.random.default_rng(seed).normal(size=(n, dims)), labels)


def trained_encoder(*, seed: int = 0) -> Encoder:
    """An encoder in eval mode whose BN statistics have moved."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_headless(SPEC, size=16)
        with torch.no_grad():
            encoder.train()(torch.randn(16, 3, 16, 16))
    return encoder.eval()
