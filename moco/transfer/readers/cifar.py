"""CIFAR-10 and CIFAR-100, in the binary version and in the version for Python.

The version for Python has pickles. They are not unpickled, because that could run any code. Instead their opcodes are
listed, and the arguments that are pixels, labels and names are used.
"""

import pickletools
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from moco.transfer.labelled import LabelledArrays
from moco.transfer.readers.entries import AnnotationError, read_bytes, read_text
from moco.transfer.readers.shared import ReadOptions, split_error

PIXELS = 3 * 32 * 32
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
FILES = {  # (number of classes, version for Python): training files, test files, file with the class names
    (10, False): ([f"{name}.bin" for name in BATCHES], ["test_batch.bin"], "batches.meta.txt"),
    (10, True): (BATCHES, ["test_batch"], "batches.meta"),
    (100, False): (["train.bin"], ["test.bin"], "fine_label_names.txt"),
    (100, True): (["train"], ["test"], "meta"),
}
TEXTS = {"SHORT_BINSTRING", "BINSTRING", "STRING", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE"}
NUMBERS = {"BININT", "BININT1", "BININT2", "INT", "LONG1"}


def recognises(path: Path) -> bool:
    return _version(path) is not None


def read(path: Path, options: ReadOptions) -> LabelledArrays:
    """The images of `train` or `test`, in the order of the files. CIFAR-100 has its 100 fine classes.

    Raises:
        AnnotationError: a file is damaged.
        DataError: there is no such split.
    """
    version = _version(path)
    if version is None or options.split not in ("train", "test"):
        raise split_error(path, ("train", "test"), options.split)
    count, python = version
    training, test, names = FILES[version]
    classes = _names(path / names, python)
    if len(classes) != count:
        raise AnnotationError(path / names, "", f"names {len(classes)} classes; expected {count}")
    parts = [
        _pickled(path / name, count) if python else _binary(path / name, count)
        for name in (training if options.split == "train" else test)
    ]
    pixels = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.concatenate([part[1] for part in parts])
    return LabelledArrays(np.ascontiguousarray(pixels), labels, classes, [f"{i:05d}" for i in range(len(labels))])


def _version(path: Path) -> tuple[int, bool] | None:
    for version, (training, test, names) in FILES.items():
        if (path / names).is_file() and ((path / training[0]).is_file() or (path / test[0]).is_file()):
            return version
    return None


def _names(file: Path, python: bool) -> list[str]:
    if not python:
        return [line.strip() for line in read_text(file).splitlines() if line.strip()]
    texts: list[str] = []
    inside = False  # in the list of names
    for operation, value in _operations(file):
        if inside and operation in TEXTS:
            if value in ("coarse_label_names", "num_cases_per_batch", "num_vis"):
                break
            texts.append(str(value))
        inside = inside or (operation in TEXTS and value in ("label_names", "fine_label_names"))
    return texts


def _binary(file: Path, count: int) -> tuple[UInt8[np.ndarray, "n 3072"], Int64[np.ndarray, "n"]]:
    """Pixels and labels of a binary file. A row has 1 label (CIFAR-100: coarse and fine), then 3,072 pixels."""
    data, width = np.frombuffer(read_bytes(file), dtype=np.uint8), PIXELS + (1 if count == 10 else 2)
    if not len(data) or len(data) % width:
        raise AnnotationError(file, "", f"has {len(data):,} bytes; expected rows of {width:,}")
    rows = data.reshape(-1, width)
    return _checked(file, rows[:, -PIXELS:], rows[:, width - PIXELS - 1].astype(np.int64), count)


def _pickled(file: Path, count: int) -> tuple[UInt8[np.ndarray, "n 3072"], Int64[np.ndarray, "n"]]:
    """Pixels and labels of a file for Python."""
    wanted = "labels" if count == 10 else "fine_labels"
    pixels = np.zeros(0, dtype=np.uint8)
    labels: list[int] = []
    inside = False  # in the list of labels
    for operation, value in _operations(file):
        if operation in TEXTS and isinstance(value, str):
            inside = value == wanted
            if len(value) >= PIXELS and len(value) % PIXELS == 0:
                pixels = np.frombuffer(value.encode("latin-1", "replace"), dtype=np.uint8)
        elif inside and operation in NUMBERS and isinstance(value, int):
            labels.append(value)
    if not len(pixels) or len(pixels) != len(labels) * PIXELS:
        raise AnnotationError(file, "", f"has {len(labels):,} {wanted} and {len(pixels):,} bytes of pixels, 3,072 each")
    return _checked(file, pixels.reshape(-1, PIXELS), np.array(labels, dtype=np.int64), count)


def _operations(file: Path) -> list[tuple[str, object]]:
    """The opcodes of a pickle and their arguments. Nothing is executed."""
    try:
        return [(code.name, value) for code, value, _ in pickletools.genops(read_bytes(file))]
    except AnnotationError:
        raise
    except Exception as error:  # a damaged file
        raise AnnotationError(file, "", f"is not a pickle of CIFAR ({str(error)[:60]})") from error


def _checked(
    file: Path, pixels: UInt8[np.ndarray, "n 3072"], labels: Int64[np.ndarray, "n"], count: int
) -> tuple[UInt8[np.ndarray, "n 3072"], Int64[np.ndarray, "n"]]:
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise AnnotationError(file, f"image {wrong[0]}", f"has the class {labels[wrong[0]]}; expected 0 to {count - 1}")
    return pixels, labels
