"""`Images`, which everything reads from: a folder, a data set, or a subset of either."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8


class DataError(ValueError):
    """Images that cannot be used. The message says what was expected, what was given, and what to do."""


@runtime_checkable
class Images(Protocol):
    """n images in a fixed order. Code uses their indices; `names` are for people and files."""

    @property
    def names(self) -> Sequence[str]: ...  # path relative to its root, with forward slashes

    @property
    def labels(self) -> Int64[np.ndarray, "n"] | None: ...  # index into `classes`; None when there are no classes

    @property
    def classes(self) -> Sequence[str]: ...  # empty without labels

    @property
    def sizes(self) -> Int64[np.ndarray, "n"]: ...  # [bytes] of the file; 0 where there is none

    @property
    def mtimes(self) -> Int64[np.ndarray, "n"]: ...  # [ns] when the file was changed; 0 where there is none

    def __len__(self) -> int: ...

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Image `index` as RGB. Raises BadImage."""
        ...


class Labelling(NamedTuple):
    """The labels of images, some of which may have none."""

    numbers: Int64[np.ndarray, "n"]  # index into `names`; -1: no label
    names: Sequence[str]  # sorted by their bytes

    @property
    def whole(self) -> bool:
        """Whether every image has a label, and there are at least two different ones."""
        return len(self.names) > 1 and bool((self.numbers >= 0).all())


def labelling_of(labels: Sequence[str | None]) -> Labelling:
    """Labels by name (None: no label) as numbers.

    Names that look the same are one class: an accent may be stored as a letter of its own or not (NFD, NFC).
    """
    spelled = {label: unicodedata.normalize("NFC", label) for label in {*labels} if label is not None}
    names = sorted(set(spelled.values()), key=os.fsencode)
    place = {name: i for i, name in enumerate(names)}
    number: dict[str | None, int] = {label: place[name] for label, name in spelled.items()} | {None: -1}
    return Labelling(np.array([number[label] for label in labels], dtype=np.int64), names)


class Subset:
    """Some of `images`, in the order of `indices`."""

    def __init__(self, images: Images, indices: Iterable[int] | np.ndarray):
        self.images, self.indices = images, np.asarray(indices, dtype=np.int64)
        if len(self.indices) and not (self.indices.min() >= 0 and self.indices.max() < len(images)):
            raise DataError(f"expected indices in [0, {len(images)}), got {self.indices.min()}..{self.indices.max()}")
        self.names = [images.names[int(i)] for i in self.indices]
        self.sizes, self.mtimes = images.sizes[self.indices], images.mtimes[self.indices]

    @property
    def labels(self) -> Int64[np.ndarray, "n"] | None:  # computed late: a Dataset may read every image for them
        labels = self.images.labels
        return None if labels is None else labels[self.indices]

    @property
    def classes(self) -> Sequence[str]:
        return self.images.classes

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self.images.read(int(self.indices[index]))
