"""Recognise a file by its first bytes, so that an error can say more than "not a checkpoint"."""

import zipfile
from pathlib import Path

FIRST = 512  # bytes that are looked at
SAFETENSORS = "safetensors"
LFS = (
    "a Git LFS pointer to a file that was not downloaded: run git lfs pull in its repository, or "
    "download the file itself"
)
HTML = "a web page (HTML), which comes in place of a file that needs a login or has moved: download it again"
PACKED = "a packed file ({}): unpack it, and give the file of weights that is in it"
OTHERS = "{}: give the weights as PyTorch or safetensors has them"

BEGINNINGS: dict[bytes, str] = {
    b"version https://git-lfs": LFS,
    b"\x89HDF\r\n\x1a\n": OTHERS.format("a file of HDF5, which Keras writes"),
    b"GGUF": OTHERS.format("a GGUF file, which llama.cpp reads"),
    b"\x93NUMPY": OTHERS.format("an array of NumPy (.npy)"),
    b"PAR1": OTHERS.format("a Parquet file"),
    b"\x89PNG\r\n": OTHERS.format("an image (PNG)"),
    b"\xff\xd8\xff": OTHERS.format("an image (JPEG)"),
    b"GIF8": OTHERS.format("an image (GIF)"),
    b"%PDF": OTHERS.format("a PDF"),
    b"\x7fELF": OTHERS.format("a program"),
    b"\x1f\x8b": PACKED.format("gzip"),
    b"BZh": PACKED.format("bzip2"),
    b"\xfd7zXZ\x00": PACKED.format("xz"),
    b"7z\xbc\xaf\x27\x1c": PACKED.format("7-Zip"),
    b"Rar!": PACKED.format("RAR"),
    b"\x28\xb5\x2f\xfd": PACKED.format("Zstandard"),
}
ONNX_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)  # tags of ModelProto that can follow ir_version, tag 0x08


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do: the length of a JSON header that is in the file, and its brace."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(9)
    return len(first) == 9 and first[8:] == b"{" and 2 <= int.from_bytes(first[:8], "little") <= size - 8


def kind_of(path: Path) -> str | None:
    """What the file is that cannot be read as weights, and what to do: half a sentence. None where it does not tell."""
    with path.open("rb") as file:
        first = file.read(FIRST)
    if not first:
        return "an empty file: make or download it again"
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return HTML
    for beginning, kind in BEGINNINGS.items():
        if first.startswith(beginning):
            return kind
    if first[4:8] == b"TFL3":
        return OTHERS.format("a file of TensorFlow Lite")
    if _is_onnx(first, path):
        return OTHERS.format("an ONNX file, which holds a program and its numbers under names of its own")
    if first.startswith(b"PK"):
        return _kind_of_zip(path)
    if is_safetensors(path) and path.suffix != ".safetensors":
        return "a safetensors file, by its first bytes, that is damaged: download it again"
    if first.isascii() and all(byte >= 32 or byte in b"\t\r\n\f" for byte in first):
        return OTHERS.format(f"text, which begins with {first[:40].decode()!a}")
    return None


def _is_onnx(first: bytes, path: Path) -> bool:
    if len(first) > 2 and first[0] == 0x08 and 1 <= first[1] < 0x80 and first[2] in ONNX_FIELDS:
        return True
    return path.suffix == ".onnx"


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return (
            "a zip archive, as torch.save writes, that is cut off or damaged (its table of contents, at the end, cannot"
            " be read): copy or download it again"
        )
    ends = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in ends and "constants.pkl" in ends:
        return "TorchScript, a program: save model.state_dict() instead, where the model is made"
    if any(name.endswith(".data/extern_modules") for name in names):
        return "a torch.package, a program: save model.state_dict() instead, where the model is made"
    if "model.weights.h5" in ends:
        return OTHERS.format("a model of Keras")
    if "data.pkl" in ends:
        return "a file of torch.save that is damaged, or holds something else than tensors: make or download it again"
    if names and all(name.endswith(".npy") for name in names):
        return OTHERS.format("arrays of NumPy (.npz)")
    some = ", ".join(ascii(name)[1:-1] for name in names[:3])
    return f"a zip archive (with {some or 'nothing in it'}): unpack it, and give the file of weights that is in it"
