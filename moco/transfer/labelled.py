"""Images with one class each, as `Images` for pre-training and evaluation."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from moco.data.decode.decode import BadImage, decode


class Item(NamedTuple):
    """An image file, its name and its class."""

    path: Path
    name: str
    label: int


class LabelledFiles:
    """Image files with one class each."""

    def __init__(self, items: Sequence[Item], classes: Sequence[str]):
        self.paths = [item.path for item in items]
        self.names = [item.name for item in items]
        self.labels = np.array([item.label for item in items], dtype=np.int64)
        self.classes = tuple(classes)
        status = [os.stat(path) for path in self.paths]
        self.sizes = np.array([one.st_size for one in status], dtype=np.int64)
        self.mtimes = np.array([one.st_mtime_ns for one in status], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Image `index` as RGB. Raises BadImage."""
        try:
            return decode(self.paths[index])
        except BadImage as bad:
            raise BadImage(self.names[index], bad.reason) from bad


class LabelledArrays:
    """Images in memory with one class each."""

    def __init__(
        self,
        pixels: UInt8[np.ndarray, "n H W 3"],
        labels: Int64[np.ndarray, "n"],
        classes: Sequence[str],
        names: Sequence[str],
    ):
        self.pixels, self.labels, self.classes, self.names = pixels, labels, tuple(classes), names
        self.sizes = np.zeros(len(labels), dtype=np.int64)
        self.mtimes = np.zeros(len(labels), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self.pixels[index]
