"""Export an encoder for other libraries and programs: `export`. A file appears after it was read back and checked."""

from collections.abc import Callable
from pathlib import Path

from moco.atomic_output import created_folder, local_path
from moco.recipe import EncoderSpec, RecipeError, unknown
from moco.weights.export.deit import to_deit
from moco.weights.export.detectron2 import to_detectron2_file
from moco.weights.export.fair import to_fair
from moco.weights.export.hf import to_hf
from moco.weights.export.libraries import to_timm, to_torchvision
from moco.weights.export.onnx import to_onnx
from moco.weights.export_paths import check_outputs, export_files
from moco.weights.loaded_weights import Weights, WeightsError

__all__ = ["EXPORT_FORMATS", "check_request", "export"]

EXPORT_FORMATS: dict[str, Callable[..., str]] = {
    "torchvision": to_torchvision,
    "timm": to_timm,
    "hf": to_hf,
    "fair": to_fair,
    "deit": to_deit,
    "detectron2": to_detectron2_file,
    "onnx": to_onnx,
}


def export(
    weights: Weights,
    *,
    to: str,
    out: str | Path,
    architecture: str | EncoderSpec | None = None,
    overwrite: bool = False,
) -> str:
    """Write `out` for the library or program `to`, one of `EXPORT_FORMATS`, and check its features.

    torchvision, timm: a state dict that lacks only the classifier. hf: a folder for timm and the Hugging Face hub.
    fair: a checkpoint as MoCo's authors write it, with f_k, queue, predictor and optimizer if they are known. deit: for
    fine-tuning a ViT by DeiT's script. detectron2: a ResNet, and a file of settings. onnx: images to features. No file
    appears before it has passed the check.

    Args:
        weights, architecture: as for `load_encoder`.
        overwrite: replace existing files; a folder is never replaced.

    Returns:
        What was written, how much its features differ from ours, and how to load it.

    Raises:
        WeightsError: the library has no such network, or gives other features. RecipeError: `out` exists, or is one of
            the files that are read. ImportError: an optional package is missing.
    """
    files = check_request(weights, to, local_path(out), overwrite=overwrite)
    with created_folder(files[0].parent):
        return EXPORT_FORMATS[to](weights, files[0], architecture=architecture, overwrite=overwrite)


def check_request(weights: Weights, to: str, out: Path, *, overwrite: bool) -> list[Path]:
    """The files that the export will write. Raises WeightsError and RecipeError, as `export`."""
    if to not in EXPORT_FORMATS:
        raise WeightsError(unknown("format", to, list(EXPORT_FORMATS)))
    files = export_files(out, to)
    check_outputs(files, to, overwrite=overwrite)
    _check_not_read(weights, files)
    return files


def _check_not_read(weights: Weights, files: list[Path]) -> None:
    """Raise RecipeError if a file to be replaced is one of the weights, or lies in their folder."""
    read = Path(weights).resolve()
    for file in files:
        if read.exists() and file.exists() and (read == file.resolve() or read in file.resolve().parents):
            raise RecipeError(f"{file} is read by this command, and must not be overwritten: give another name")
