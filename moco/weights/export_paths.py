"""Check the names of exported files. Imports no torch, so a command can check arguments fast."""

from pathlib import Path

from moco.atomic_output import refuse_existing
from moco.files import check_writable
from moco.weights.errors import WeightsError

ENDINGS: dict[str, tuple[str, ...]] = {  # format -> endings of its file; hf writes a folder
    "torchvision": (".safetensors", ".pth", ".pt"),
    "timm": (".safetensors", ".pth", ".pt"),
    "hf": (),
    "fair": (".pth.tar", ".pth", ".pt"),
    "deit": (".pth", ".pt"),
    "detectron2": (".pth",),
    "onnx": (".onnx",),
}


def check_ending(out: Path, to: str) -> None:
    """Raise WeightsError for a file whose name does not end as the format `to` expects."""
    endings = ENDINGS[to]
    if endings and not out.name.endswith(endings):
        *others, last = endings
        expected = f"{', '.join(others)} or {last}" if others else last
        raise WeightsError(f"export writes a file that ends in {expected}, got '{out}'")


def export_files(out: Path, to: str) -> list[Path]:
    """The files that an export writes. Raises WeightsError for a name that does not end as the format expects."""
    check_ending(out, to)
    return [out, out.with_suffix(".yaml")] if to == "detectron2" else [out]


def check_outputs(files: list[Path], to: str, *, overwrite: bool) -> None:
    """Raise RecipeError if a file exists and must not be overwritten, or a folder is not empty."""
    if ENDINGS[to]:
        refuse_existing(files, overwrite=overwrite)
    else:
        check_new_folder(files[0])


def check_new_folder(out: Path) -> None:
    """Raise WeightsError if `out` exists and is not an empty folder: a folder is never replaced.

    Raises PermissionError if it cannot be created.
    """
    if out.name in ("", ".."):  # a complete folder is renamed to this name
        raise WeightsError(
            f"expected the name of a new folder, got {str(out)!r}: give its name, such as {out / 'encoder'}"
        )
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise WeightsError(f"expected a new or an empty folder, and {out} is neither: give another name, or remove it")
    check_writable(out)
