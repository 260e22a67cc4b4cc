"""Export an encoder to ONNX: images N x 3 x S x S to features N x D, any N. ONNX Runtime must agree with torch."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moco.atomic_output import stage_paths
from moco.encoders import Encoder
from moco.recipe import EncoderSpec
from moco.text import extra
from moco.weights.encoder_folder import load_encoder
from moco.weights.export.files import some_images
from moco.weights.export.libraries import describe_images
from moco.weights.loaded_weights import Weights, WeightsError

TOLERANCE = 1e-4  # largest difference, relative to the largest feature: ONNX Runtime sums in another order

PROGRAM = """\
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession({out}, providers=["CPUExecutionProvider"])
images = np.zeros((1, {channels}, {size}, {size}), np.float32)  # your images
(features,) = session.run(None, {{"images": images}})"""


class FeatureNetwork(nn.Module):
    """The part of an encoder that is exported."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.features(images)


def to_onnx(weights: Weights, out: Path, *, architecture: str | EncoderSpec | None, overwrite: bool) -> str:
    runtime = onnx_runtime()
    encoder, config = load_encoder(weights, architecture=architecture)
    network, size, channels = FeatureNetwork(encoder).eval(), config.data.size, encoder.spec.channels
    with stage_paths([out], overwrite=overwrite) as (aside,):
        with quiet():
            torch.onnx.export(
                network, (some_images(2, size, channels),), aside, dynamo=True, external_data=False, verbose=False,
                input_names=["images"], output_names=["features"], dynamic_shapes={"images": {0: "N"}},
            )  # fmt: skip
        session = runtime.InferenceSession(aside, providers=["CPUExecutionProvider"])
        apart = max(check_agreement(session, network, some_images(n, size, channels)) for n in (1, 3))
    return (
        f"{out} maps `images`, N x {channels} x {size} x {size}, to `features`, N x {config.num_features}. In ONNX "
        f"Runtime they differ from torch's by at most {apart:.1g} of the largest feature, for 1 and for 3 random "
        "images.\n"
        f"{describe_images(config)}\n\n{PROGRAM.format(out=json.dumps(str(out)), size=size, channels=channels)}"
    )


def onnx_runtime() -> Any:
    """The module onnxruntime. Raises ImportError, which names the extra, if it or torch's exporter is missing."""
    try:
        import_module("onnxscript")  # torch's exporter needs it
        return import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(f"export to onnx needs {error.name}: {extra('export')}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """While open, torch's exporter prints nothing."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_agreement(session: Any, network: nn.Module, x: Tensor, what: str = "features") -> float:
    """The largest difference of an output, relative to the largest. Raises WeightsError above the tolerance."""
    with torch.no_grad():
        expected = network(x)
    got = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    apart = ((got - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo().tiny)).item()
    if not apart < TOLERANCE:
        raise WeightsError(
            f"ONNX Runtime gives other {what}: they differ by {apart:.1g} of the largest, expected {TOLERANCE:g}"
        )
    return apart
