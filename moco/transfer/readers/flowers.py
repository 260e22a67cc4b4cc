"""Oxford Flowers 102: jpg/image_00001.jpg ..., classes in imagelabels.mat, splits in setid.mat."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from moco.transfer.labelled import Item, LabelledFiles
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.mat import read_mat
from moco.transfer.readers.shared import ReadOptions, split_error

SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}
CLASSES = 102


def recognises(path: Path) -> bool:
    return (path / "imagelabels.mat").is_file() and (path / "setid.mat").is_file()


def read(path: Path, options: ReadOptions) -> LabelledFiles:
    """The images of `train`, `val` or `test`, or of several joined with +, in the order of setid.mat.

    The names of the classes are their numbers.

    Raises:
        AnnotationError: a file is damaged, or an image is missing.
        DataError: there is no such split.
    """
    parts = (options.split or "").split("+")
    if not {*parts} <= {*SPLITS}:
        raise split_error(path, SPLITS, options.split, joined=True)
    labels = _numbers(path / "imagelabels.mat", "labels")
    if len(labels) and not (labels.min() >= 1 and labels.max() <= CLASSES):
        raise AnnotationError(
            path / "imagelabels.mat", "labels", f"expected classes 1 to {CLASSES}, got {labels.max()}"
        )
    file = path / "setid.mat"
    images = ImageFiles([options.images or path / "jpg"])
    items: list[Item] = []
    for part in parts:
        for number in _numbers(file, SPLITS[part]).tolist():
            name = f"image_{number:05d}"
            image = images.find(f"{name}.jpg")
            if not 1 <= number <= len(labels) or image is None:
                raise AnnotationError(
                    file, name, f"imagelabels.mat has no class for it, or there is no {name}.jpg in {images.describe()}"
                )
            items.append(Item(image, name, int(labels[number - 1]) - 1))
    return LabelledFiles(items, [str(number) for number in range(1, CLASSES + 1)])


def _numbers(file: Path, key: str) -> Int64[np.ndarray, "n"]:
    """The whole numbers of a variable in a .mat file."""
    values = read_mat(file).get(key)
    if values is None or (values % 1 != 0).any():
        raise AnnotationError(file, key, f"expected whole numbers in the variable {key}")
    return values.reshape(-1).astype(np.int64)
