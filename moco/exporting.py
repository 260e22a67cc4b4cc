"""`moco.export`: write a pre-trained encoder, or a model that was fine-tuned by `moco transfer`, for other programs."""

from pathlib import Path
from typing import Any

from moco.atomic_output import created_folder, local_path
from moco.recipe import EncoderSpec
from moco.weights.export import check_request
from moco.weights.export import export as export_encoder
from moco.weights.loaded_weights import WeightsError
from moco.weights.tuned_folder import find_tuned_folder


def export(
    weights: Any,
    *,
    to: str,
    out: str | Path,
    architecture: str | EncoderSpec | None = None,
    overwrite: bool = False,
) -> str:
    """Write `out` for the library or program `to`, and check that its outputs are the same there.

    An encoder: see `moco.weights.export.export`. A segmenter or classifier of `moco transfer` is exported to ONNX:
    bytes of images to logits of each pixel, or to probabilities.

    Args:
        weights: what `moco.load` reads.
        to: torchvision, timm, hf, fair, deit, detectron2 or onnx.
        architecture: as for `moco.load`.
        overwrite: replace existing files; a folder is never replaced.

    Returns:
        What was written, how much its outputs differ from ours, and how to load it.

    Raises:
        WeightsError: there is no such model in that format, or it has other outputs there. RecipeError: `out` exists,
            or is one of the files that are read. ImportError: an optional package is missing.
    """
    folder = find_tuned_folder(weights)
    if folder is None:
        return export_encoder(weights, to=to, out=out, architecture=architecture, overwrite=overwrite)
    if to != "onnx":
        raise WeightsError(
            f"{folder} is a fine-tuned model, which is exported to onnx only; to export an encoder to {to}, name the "
            "pre-training run that it started from"
        )
    files = check_request(weights, to, local_path(out), overwrite=overwrite)
    from moco.transfer.export_onnx import export_model  # imported here, because encoders do not need its libraries

    with created_folder(files[0].parent):
        return export_model(folder, files[0], overwrite=overwrite)
