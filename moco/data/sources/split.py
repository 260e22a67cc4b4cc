"""Which images an encoder is judged on, and from which it may learn the labels."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moco.data.sources.folder import Folder, find_images
from moco.data.sources.images import DataError, Images, Subset
from moco.rng import fold, permuted
from moco.text import shown

TEST_FOLDERS = ("test", "val")  # beside `train`, in order of preference
ONE_IN = 5  # images are held out where there are no such folders


class Split(NamedTuple):
    """Images to learn from, images to be judged on, and a sentence that says where they are from."""

    train: Images
    test: Images
    how: str


def split_sources(source: Images | str | Path | Sequence[str | Path]) -> Split:
    """`train/` and `test/` (or `val/`) of a folder that has them; otherwise a fifth of each class is held out.

    The fifth is the same in every run on the same images. A class of less than five images has none held out.

    Raises:
        DataError: what `find_images` raises, classes that only the test images have, or too few images to hold any out.
    """
    if isinstance(source, str | Path):
        parts = _train_and_test(os.fspath(source))
        if parts is not None:
            return parts
        source = find_images(source)
    elif isinstance(source, Sequence):
        source = find_images(source)
    return _held_out(source)


def _train_and_test(folder: str) -> Split | None:
    """The split that sub-folders make, if there are any; test images with labels come before those without."""
    train = os.path.join(folder, "train")
    tests = [name for name in TEST_FOLDERS if os.path.isdir(os.path.join(folder, name))]
    if not os.path.isdir(train) or not tests:
        return None
    images = find_images(train)
    found = [(name, find_images(os.path.join(folder, name))) for name in tests]
    name, test = next((one for one in found if one[1].labels is not None), found[0])
    if images.labels is not None and test.labels is not None:
        test = _with_classes_of(images, test, where=os.path.join(folder, name))
    how = f"train/ ({len(images):,} images) and {name}/ ({len(test):,} images) of {shown(folder)}"
    return Split(images, test, how)


def _with_classes_of(train: Folder, test: Folder, *, where: str) -> Folder:
    """`test` with the label numbers of `train`: a class may have no test image, and the numbers must not shift."""
    number = {name: i for i, name in enumerate(train.classes)}
    unknown = [name for name in test.classes if name not in number]
    if unknown:
        some = ", ".join(shown(name) for name in unknown[:3])
        raise DataError(
            f"{shown(where)} has {len(unknown)} classes that train/ beside it has not, such as {some}: make them equal"
        )
    assert test.labels is not None
    numbers = np.array([number[name] for name in test.classes], dtype=np.int64)
    return dataclasses.replace(test, labels=numbers[test.labels], classes=train.classes)


def _held_out(images: Images) -> Split:
    labels = np.zeros(len(images), dtype=np.int64) if images.labels is None else images.labels
    is_test = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn = permuted(np.arange(len(members)), len(members), fold(0, int(label)))
        is_test[members[drawn % ONE_IN == ONE_IN - 1]] = True
    test = np.flatnonzero(is_test)
    if not len(test):
        raise DataError(
            f"{len(images)} images are too few to hold one in {ONE_IN} of a class out for the test: add some"
        )
    whose = "the images" if images.labels is None else "each class"
    how = (
        f"one in {ONE_IN} of {whose}, drawn alike in every run, is held out: "
        f"{len(images) - len(test):,} images to learn from, {len(test):,} to test"
    )
    return Split(Subset(images, np.flatnonzero(~is_test)), Subset(images, test), how)
