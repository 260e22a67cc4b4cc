"""The endings of exported files. Imports no torch, so that a command can refuse at once."""

from pathlib import Path

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
