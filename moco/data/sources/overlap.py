"""Find test images that are also training images: memory alone would find their right neighbours."""

import hashlib
import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from moco.data.sources.folder import Folder
from moco.data.sources.images import DataError, Images, Subset
from moco.rng import mix
from moco.text import first_few

SOME = 1000  # test images whose contents are compared, spread evenly over all
MOST = 50  # training images of the same size that one is compared with
HEAD = 4096  # [bytes] that are compared first


def check_disjoint(train: Images, test: Images) -> None:
    """Raise DataError when a file is in both, under any name. Only images of folders and lists are checked.

    Links to one file have one size and time of change: only files that agree in both are compared further.
    """
    if _files(train) is None or _files(test) is None:
        return
    of_train, of_test = _size_and_time(train), _size_and_time(test)
    alike = np.flatnonzero(np.isin(of_test, of_train)).tolist()
    if not alike:
        return
    wanted = np.flatnonzero(np.isin(of_train, of_test)).tolist()
    there = {identity for i in wanted if (identity := _identity(path_of(train, i)))}
    both = [test.names[i] for i in alike if _identity(path_of(test, i)) in there]
    if both:
        raise DataError(
            f"{len(both):,} of {len(test):,} test images are among the training images: {first_few(both)}. A score on "
            "them would measure memory. Give other test images, or omit --test to hold out some training images"
        )


def _size_and_time(images: Images) -> UInt64[np.ndarray, " n"]:
    """A number for the size and time of change of each image: those of two that agree in both are equal."""
    with np.errstate(over="ignore"):
        return mix(images.mtimes.astype(np.uint64)) + images.sizes.astype(np.uint64)


def copies_note(train: Images, test: Images) -> str:
    """A sentence on test images that are copies of training images; empty where none was found.

    At most SOME test images are checked.
    """
    if _files(train) is None or _files(test) is None:
        return ""
    checked: list[int] = np.unique(np.linspace(0, len(test) - 1, min(SOME, len(test))).astype(int)).tolist()
    sizes = {int(test.sizes[i]) for i in checked}
    same_size: dict[int, list[int]] = defaultdict(list)
    for i in np.flatnonzero(np.isin(train.sizes, list(sizes))).tolist():
        if len(same_size[size := int(train.sizes[i])]) < MOST:
            same_size[size].append(i)
    copies = [test.names[i] for i in checked if _has_copy(path_of(test, i), train, same_size[int(test.sizes[i])])]
    if not copies:
        return ""
    of = f"{len(test):,}" if len(checked) == len(test) else f"{len(checked):,} checked, of {len(test):,},"
    return f"{len(copies):,} test images of {of} have the same content as a training image: {first_few(copies)}"


def path_of(images: Images, index: int) -> str:
    """The path of image `index` of a folder or list, or of a subset of one."""
    while isinstance(images, Subset):
        index, images = int(images.indices[index]), images.images
    assert isinstance(images, Folder)
    return images.path(index)


def _files(images: Images) -> Folder | None:
    """The folder that the images come from; None if they are no files."""
    while isinstance(images, Subset):
        images = images.images
    return images if isinstance(images, Folder) and images.local else None


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode, which all links to a file share."""
    with suppress(OSError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None


def _has_copy(path: str, train: Images, indices: list[int]) -> bool:
    with suppress(OSError):
        head = _read_head(path)
        for i in indices:
            other = path_of(train, i)
            with suppress(OSError):
                if _read_head(other) == head and _digest(other) == _digest(path):
                    return True
    return False


def _read_head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _digest(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
