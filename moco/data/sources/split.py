"""Split labelled images into those a classifier learns from and those it is tested on."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moco.data.remote.urls import is_url
from moco.data.sources.groups import IMAGE, number_groups
from moco.data.sources.images import DataError, Images, Subset
from moco.data.sources.labels import (
    TEST_NAMES,
    TRAIN_NAMES,
    describe_repeated_files,
    require_labels,
    split_name,
    with_classes,
    without_strays,
)  # fmt: skip
from moco.data.sources.open import Sources, open_folder, open_images
from moco.rng import fold, permute
from moco.text import escape, first_few

TEST_ONE_IN = 5  # one in so many images is held out where there are no training and test folders


class Split(NamedTuple):
    """Images to learn from, images to test on, and a sentence that says where they are from."""

    train: Images
    test: Images
    how: str


def split_sources(source: Sources, *, groups: str | None = None) -> Split:
    """The training and test folders inside of `source`; without such folders, a fifth of each class is held out.

    TRAIN_NAMES and TEST_NAMES are the names of such folders, in upper or lower case, also as in `training_set` or
    `val2017`. The fifth is the same in every run on the same images. A class of fewer than five images has none held
    out. `groups` is a rule for images that belong together (see `number_groups`); then whole groups are held out. The
    few images outside the class folders are left out. `how` says so, and names the classes without a test
    image.

    Raises:
        DataError: what `open_images` raises, classes that only the test images have, classes that are names of splits,
            several training folders, or too few images to hold any out.
    """
    if isinstance(source, str | Path):
        parts = _train_and_test(os.fspath(source))
        if parts is not None:
            return parts
    images, note = without_strays(open_images(source))
    if images.labels is not None:
        require_labels(images)  # refuses classes that are names of splits
    return _with_notes(_held_out(images, groups), note, describe_repeated_files(images))


def split_of(data: Sources, test: Sources) -> Split:
    """`data` to learn from and `test` to test on, with one numbering of the classes. Raises DataError."""
    train, note = without_strays(open_images(data))
    judged, more = with_classes(
        open_images(test), require_labels(train, "the training images").classes, "the test images"
    )
    how = f"{len(train):,} images to learn from, {len(judged):,} to test"
    twice = describe_repeated_files(train, "the training images"), describe_repeated_files(judged, "the test images")
    return _with_notes(Split(train, judged, how), note, more, *twice, _untested(train, judged))


def _with_notes(split: Split, *notes: str) -> Split:
    return split._replace(how="; ".join(filter(None, [split.how, *notes])))


def _train_and_test(folder: str) -> Split | None:
    """The split that sub-folders make, or None. A test folder with labels is preferred."""
    inside = _folders(folder)
    trains = [name for name in inside if split_name(name) in TRAIN_NAMES]
    tests = [name for usual in TEST_NAMES for name in inside if split_name(name) == usual]
    if not trains or not tests:
        return None
    if len(trains) > 1:
        raise DataError(f"{escape(folder)} has several training folders, {first_few(trains)}: keep one, or give one")
    train, note = without_strays(open_folder(os.path.join(folder, trains[0])))
    found = [(name, open_folder(os.path.join(folder, name))) for name in tests]
    name, test = next((one for one in found if one[1].labelling.names), found[0])
    judged, more, untested = test, "", ""
    if train.labels is not None:
        require_labels(train, f"the images in {escape(os.path.join(folder, trains[0]))}")
        judged, more = with_classes(test, train.classes, f"the images in {escape(os.path.join(folder, name))}")
        untested = _untested(train, judged)
    how = f"{trains[0]}/ ({len(train):,} images) and {name}/ ({len(judged):,} images) of {escape(folder)}"
    return _with_notes(Split(train, judged, how), note, more, untested)


def _folders(folder: str) -> list[str]:
    """Names of the folders in a folder, sorted; none where it cannot be read."""
    if is_url(folder):
        from moco.data.remote.open import folders_of

        return folders_of(folder)
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def draw_fifth(labels: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> np.ndarray:
    """A mask with True for one in five images of each label, drawn by `seed`; for none where there are fewer.

    With `groups`, the number of each image's group, one in five groups is drawn. The label of a group is that of its
    first image.
    """
    if groups is not None:
        _, first, place = np.unique(groups, return_index=True, return_inverse=True)
        return draw_fifth(labels[first], seed=seed)[place]
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn = permute(np.arange(len(members)), len(members), fold(seed, int(label)))
        chosen[members[drawn % TEST_ONE_IN == TEST_ONE_IN - 1]] = True
    return chosen


def draw_share(labels: np.ndarray, share: float, *, seed: int = 0) -> np.ndarray:
    """A mask with True for a share of the images of each label, drawn by `seed`; for one at least."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn = permute(np.arange(len(members)), len(members), fold(seed, int(label)))
        chosen[members[drawn < max(1, round(share * len(members)))]] = True
    return chosen


def _held_out(images: Images, rule: str | None) -> Split:
    labels = np.zeros(len(images), dtype=np.int64) if images.labels is None else images.labels
    groups = None if rule in (None, IMAGE) else number_groups(images.names, rule)
    is_test = draw_fifth(labels, groups)
    test = np.flatnonzero(is_test)
    if not len(test):
        if groups is None:
            what, todo = f"{len(images)} images", "add images"
        else:
            what = f"the groups of images by data.groups={rule!r}"
            todo = "give training and test images in folders of their own, such as train/ and test/"
        raise DataError(f"{what} are too few to hold out one in {TEST_ONE_IN} of a class for the test: {todo}")
    whose = "the images" if images.labels is None else "each class"
    whose = whose if groups is None else f"the groups by {escape(str(rule))} of {whose}"
    how = (
        f"one in {TEST_ONE_IN} of {whose}, the same in every run, is held out: "
        f"{len(images) - len(test):,} images to learn from, {len(test):,} to test"
    )
    split = Split(Subset(images, np.flatnonzero(~is_test)), Subset(images, test), how)
    return split if images.labels is None else _with_notes(split, _too_few(split.train, split.test))


def _without_test(train: Images, test: Images) -> list[str]:
    """The classes of training images that have no test image."""
    assert train.labels is not None
    assert test.labels is not None
    return [train.classes[int(label)] for label in np.setdiff1d(train.labels, test.labels)]


def _untested(train: Images, test: Images) -> str:
    """A sentence on the classes without a test image; empty when there are none."""
    missing = _without_test(train, test)
    one = "has" if len(missing) == 1 else "have"
    return (
        f"{len(missing):,} of {len(train.classes):,} classes {one} no test image: {first_few(missing)}"
        if missing
        else ""
    )


def _too_few(train: Images, test: Images) -> str:
    """A sentence on the classes too small for a held-out image; empty when there are none."""
    missing = _without_test(train, test)
    if not missing:
        return ""
    one = len(missing) == 1
    return (
        f"{len(missing):,} of {len(train.classes):,} classes {'has' if one else 'have'} fewer than {TEST_ONE_IN} "
        f"images, so none of {'it' if one else 'theirs'} is tested: {first_few(missing)}"
    )
