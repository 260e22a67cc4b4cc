"""Recognise a file by its first bytes, so that an error can say more than "not a checkpoint"."""

import zipfile
from pathlib import Path

from moco.text import first_few

FIRST = 512  # [bytes] that are read
SAFETENSORS = "safetensors"
LFS = (
    "a Git LFS pointer to a file that was not downloaded: run git lfs pull in its repository, or "
    "download the file itself"
)
HTML = "a web page (HTML), which servers send if a file needs a login or has moved: download it again"
PACKED = "a compressed file ({}): unpack it, and give the weights file in it"
OTHERS = "{}: convert the weights to a PyTorch or safetensors file first"

BEGINNINGS: dict[bytes, str] = {
    b"version https://git-lfs": LFS,
    b"\x89HDF\r\n\x1a\n": OTHERS.format("an HDF5 file, as Keras writes"),
    b"GGUF": OTHERS.format("a GGUF file, as llama.cpp reads"),
    b"\x93NUMPY": OTHERS.format("a NumPy array (.npy)"),
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
    """Whether the file starts like a safetensors file: the length of a JSON header that fits in it, and a brace."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(9)
    return len(first) == 9 and first[8:] == b"{" and 2 <= int.from_bytes(first[:8], "little") <= size - 8


def kind_of_no_weights(path: Path) -> str | None:
    """As `kind_of`, only for what is never a file of weights; None: it may be one."""
    with path.open("rb") as file:
        first = file.read(FIRST)
    of_torch = first.startswith((b"PK", b"\x80")) or first[257:262] == b"ustar" or path.suffix in (".pkl", ".pickle")
    return None if of_torch or is_safetensors(path) else kind_of(path)


def kind_of(path: Path) -> str | None:
    """The kind of a file that cannot be read as weights, and what to do, as a phrase; None if it is unknown."""
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
    if first[257:262] == b"ustar":
        return "a tar archive: unpack it, and give the weights file in it"
    if first[4:8] == b"TFL3":
        return OTHERS.format("a TensorFlow Lite file")
    if _is_onnx(first, path):
        return OTHERS.format("an ONNX file, whose weights have other names than in PyTorch")
    if first.startswith(b"PK"):
        return _kind_of_zip(path)
    if is_safetensors(path) and path.suffix != ".safetensors":
        return "a damaged safetensors file: download it again"
    if first.isascii() and all(byte >= 32 or byte in b"\t\r\n\f" for byte in first):
        return OTHERS.format(f"a text file that starts with {first[:40].decode()!a}")
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
            "a cut off or damaged zip archive, as torch.save writes (the table of contents at its end cannot be read): "
            "copy or download it again"
        )
    ends = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in ends and "constants.pkl" in ends:
        return "a TorchScript program: save model.state_dict() instead, where the model was trained"
    if any(name.endswith(".data/extern_modules") for name in names):
        return "a torch.package program: save model.state_dict() instead, where the model was trained"
    if "model.weights.h5" in ends:
        return OTHERS.format("a Keras model")
    if "data.pkl" in ends:
        return "a file of torch.save that is damaged or does not hold tensors: save or download it again"
    if names and all(name.endswith(".npy") for name in names):
        return OTHERS.format("NumPy arrays (.npz)")
    some = first_few([ascii(name)[1:-1] for name in names])
    return f"a zip archive ({f'with {some}' if some else 'empty'}): unpack it, and give the weights file in it"
