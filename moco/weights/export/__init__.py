"""Encoders for other programs: `export`, by the table FORMATS. A file stays once it has been read back."""

from collections.abc import Callable
from pathlib import Path

from moco.recipe import EncoderSpec, RecipeError, unknown
from moco.weights.export.deit import to_deit
from moco.weights.export.detectron2 import to_detectron2_file
from moco.weights.export.fair import to_fair
from moco.weights.export.hf import to_hf
from moco.weights.export.libraries import to_timm, to_torchvision
from moco.weights.export.onnx import to_onnx
from moco.weights.export_paths import check_outputs, export_files
from moco.weights.loaded_weights import Weights, WeightsError

__all__ = ["FORMATS", "export"]

FORMATS: dict[str, Callable[..., str]] = {
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
    """Write `out` for the program or library `to`, one of `FORMATS`, and check that it gives the same there.

    torchvision, timm: a state dict, with exactly the classifier missing. hf: a folder for timm and the hub. fair: the
    checkpoint of MoCo's authors, with all that is known besides f_q. deit: for fine-tuning ViTs. detectron2: a ResNet,
    with its settings beside it. onnx: images to features. The files appear when they have been checked, or not at all.

    Args:
        weights, architecture: as for `load_encoder`.
        overwrite: replace files that are there; a folder is never replaced.

    Returns:
        What was written, how far its features are apart from ours, and how to load it.

    Raises:
        WeightsError: the other side has no such network, or does not get the same out of it. RecipeError: a file
            that is there, or that is read. ImportError: an extra.
    """
    if to not in FORMATS:
        raise WeightsError(unknown("format", to, list(FORMATS)))
    files = export_files(Path(out), to)
    check_outputs(files, to, overwrite=overwrite)
    _check_not_read(weights, files)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    return FORMATS[to](weights, files[0], architecture=architecture, overwrite=overwrite)


def _check_not_read(weights: Weights, files: list[Path]) -> None:
    """Raise RecipeError where a file that is to be replaced is read, or lies in the folder that is read."""
    read = Path(weights).resolve()
    for file in files:
        if read.exists() and file.exists() and (read == file.resolve() or read in file.resolve().parents):
            raise RecipeError(f"{file} is read by this command, and must not be overwritten: give another name")
