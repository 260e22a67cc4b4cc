"""`Images`, which everything reads from: a folder, a data set, or a subset of either."""

import os
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from moco.data.decode.bands import Pixels, Raw
from moco.data.decode.scaled import Choose, Scaled, whole
from moco.data.sources.names import Chosen


class DataError(ValueError):
    """Images that cannot be used. The message says what was expected, what was given, and what to do."""


class StoreError(DataError):
    """A store that does not answer, or refuses. No image is to blame: the run ends, and the same command resumes it."""


class StoreRefused(StoreError):
    """A store that refuses: no credentials, or not the right ones."""


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

    def read(self, index: int) -> Pixels:
        """Image `index` as RGB, or all its bands (see `in_bands`). Raises BadImage."""
        ...


def read_bands(images: Images, index: int) -> Raw:
    """All bands of image `index`, as stored.

    A source that has them has a method `read_bands(index)`. Raises BadImage; DataError: this source has none.
    """
    read = getattr(images, "read_bands", None)
    if read is None:
        raise DataError(f"bands are read from files, arrays and data sets, not from {type(images).__name__}")
    return read(index)


def read_scaled(images: Images, index: int, choose: Choose) -> Scaled:
    """Image `index` at the scale that `choose` gives for its size; whole, where its source decodes in no other way.

    A source that can has a method `read_scaled(index, choose)`. Raises BadImage.
    """
    read = getattr(images, "read_scaled", None)
    return whole(images.read(index)) if read is None else read(index, choose)


class Labelling(NamedTuple):
    """The labels of images, some of which may have none."""

    numbers: Int64[np.ndarray, "n"]  # index into `names`; -1: no label
    names: Sequence[str]  # sorted by their bytes

    @property
    def whole(self) -> bool:
        """Whether every image has a label, and there are at least two different ones."""
        return len(self.names) > 1 and bool((self.numbers >= 0).all())


LABEL_NAMES = ("label", "labels", "target")  # of a column, or of a part of an item that is a dict


class LabelCodes:
    """The labels of images as they are found, by name: a number for each image, and each name once."""

    def __init__(self) -> None:
        self.codes = array("i")  # -1: no label
        self.names: dict[str, int] = {}

    @classmethod
    def none(cls, count: int) -> "LabelCodes":
        """Those of `count` images without labels."""
        made = cls()
        made.add(None, count)
        return made

    def add(self, label: str | None, times: int = 1) -> None:
        """Add the label of the next image, or of the next `times` images."""
        code = -1 if label is None else self.names.setdefault(label, len(self.names))
        if times == 1:
            self.codes.append(code)
        else:
            self.codes.extend(array("i", [code]) * times)

    def extend(self, other: "LabelCodes") -> None:
        """Add those of `other`."""
        new = np.array([*(self.names.setdefault(name, len(self.names)) for name in other.names), -1], dtype=np.intc)
        self.codes.frombytes(new[np.frombuffer(other.codes, dtype=np.intc)].tobytes())  # the last one is index -1

    def take(self, places: np.ndarray) -> None:
        """Leave only those at `places`, in this order."""
        self.codes = array("i", np.frombuffer(self.codes, dtype=np.intc)[places].tobytes())

    def labelling(self) -> Labelling:
        """The labels as numbers.

        Names that look the same are one class: an accent may be stored as a letter of its own or not (NFD, NFC).
        """
        used = set(np.unique(np.frombuffer(self.codes, dtype=np.intc)).tolist())
        spelled = {name: unicodedata.normalize("NFC", name) for name, code in self.names.items() if code in used}
        names = sorted(set(spelled.values()), key=os.fsencode)
        place = {name: i for i, name in enumerate(names)}
        new = np.full(len(self.names) + 1, -1, dtype=np.int64)  # the last one is index -1
        for name, label in spelled.items():
            new[self.names[name]] = place[label]
        return Labelling(new[np.frombuffer(self.codes, dtype=np.intc)], names)


def prefetch(images: object, indices: Iterable[int]) -> None:
    """Start to read some of `images`, which will be read in about this order. Nothing happens to those of a disk."""
    start = getattr(images, "prefetch", None)
    if start is not None:
        start(indices)


def forget(images: object) -> None:
    """Drop what was read by `prefetch`."""
    end = getattr(images, "forget", None)
    if end is not None:
        end()


class SameImages:
    """Base of sources that read all of `images` in another way."""

    images: Images

    @property
    def names(self) -> Sequence[str]:
        return self.images.names

    @property
    def labels(self) -> Int64[np.ndarray, "n"] | None:
        return self.images.labels

    @property
    def classes(self) -> Sequence[str]:
        return self.images.classes

    @property
    def sizes(self) -> Int64[np.ndarray, "n"]:
        return self.images.sizes

    @property
    def mtimes(self) -> Int64[np.ndarray, "n"]:
        return self.images.mtimes

    def __len__(self) -> int:
        return len(self.images)


class Subset:
    """Some of `images`, in the order of `indices`."""

    def __init__(self, images: Images, indices: Iterable[int] | np.ndarray):
        self.images, self.indices = images, np.asarray(indices, dtype=np.int64)
        if len(self.indices) and not (self.indices.min() >= 0 and self.indices.max() < len(images)):
            raise DataError(f"expected indices in [0, {len(images)}), got {self.indices.min()}..{self.indices.max()}")
        self.names: Sequence[str] = Chosen(images.names, self.indices)
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

    def read_bands(self, index: int) -> Raw:
        return read_bands(self.images, int(self.indices[index]))

    def read(self, index: int) -> Pixels:
        return self.images.read(int(self.indices[index]))

    def read_scaled(self, index: int, choose: Choose) -> Scaled:
        return read_scaled(self.images, int(self.indices[index]), choose)

    def prefetch(self, indices: Iterable[int]) -> None:
        prefetch(self.images, [int(self.indices[i]) for i in indices])

    def forget(self) -> None:
        forget(self.images)
