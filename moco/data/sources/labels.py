"""Labels for evaluation: images without one, and the same numbering of classes for training and test images."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moco.data.sources.folder import Folder
from moco.data.sources.images import DataError, Images, Subset
from moco.data.sources.names import Chosen, hashes_of
from moco.text import escape, first_few, plural

TRAIN_NAMES = ("train", "training")  # of folders, in any case
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation")  # in order of preference
OTHER_SPLITS = ("holdout", "unlabeled", "unlabelled")
FEW = 0.1  # up to this share of images without a label is left out; with more, the folder is refused
HOW = (
    "Evaluation needs labels, that is, at least two class folders (DATA/CLASS/IMAGE, or "
    "DATA/train/CLASS/IMAGE and DATA/test/CLASS/IMAGE): sort some images into class folders, or give a list file "
    "with a label after each path"
)


class LabelledImages(NamedTuple):
    """Images, and a note on those that were left out; empty when there are none."""

    images: Images
    note: str


def split_name(folder: str) -> str:
    """The name of the split that a folder's name means: `Training_Set` -> `training`, `val2017` -> `val`."""
    letters = re.sub(r"[-_. ]|(19|20)\d\d$", "", folder.casefold())
    return re.sub(r"(?<=.)(set|data|images)$", "", letters)


def is_split_name(folder: str) -> bool:
    """Whether a folder of this name is usually a split of a data set, not a class."""
    return split_name(folder) in (*TRAIN_NAMES, *TEST_NAMES, *OTHER_SPLITS)


def require_labels(images: Images, what: str = "the images") -> Images:
    """`images`, checked to have labels. `what` names them in messages.

    Raises:
        DataError: they have none, with the reason; or the classes are names of splits.
    """
    if images.labels is None:
        raise DataError(f"{what} have no labels: {_why(images)}. {HOW}")
    if all(map(is_split_name, images.classes)):
        raise DataError(
            f"the classes of {what} would be {first_few(images.classes)}, which are names of splits. To use them as a "
            f"split, give a folder with a training folder ({' or '.join(TRAIN_NAMES)}) and a test folder "
            f"({', '.join(TEST_NAMES)}); or give one of these folders as DATA and another one by --test"
        )
    return images


def describe_repeated_files(images: Images, what: str = "the images") -> str:
    """A sentence on the files that a list has more than once; empty when there are none.

    Raises:
        DataError: a file has two labels.
    """
    chosen = np.arange(len(images))
    while isinstance(images, Subset):
        chosen, images = images.indices[chosen], images.images
    if not isinstance(images, Folder) or all(source.walked for source in images.sources):
        return ""
    numbers, labels = images.labelling
    paths = hashes_of((os.path.normpath(images.path(int(i))) for i in chosen), len(chosen))
    _, first, place = np.unique(paths, return_index=True, return_inverse=True)
    firsts = chosen[first[place]]  # for each row, the first one of the same file
    other = np.flatnonzero(numbers[firsts] != numbers[chosen])
    if len(other):
        pair = int(firsts[other[0]]), int(chosen[other[0]])
        given = [escape(labels[int(numbers[k])]) if numbers[k] >= 0 else "none" for k in pair]
        raise DataError(
            f"{what} have {escape(images.names[pair[1]])} twice, with the labels {given[0]} and {given[1]}: keep one "
            "of the two lines"
        )
    twice = firsts[firsts != chosen]
    names = Chosen(images.names, twice[np.sort(np.unique(twice, return_index=True)[1])])
    listed = f"{plural(len(names), 'file')} of {what} {'is' if len(names) == 1 else 'are'} listed more than once"
    return f"{listed}: {first_few(names)}" if names else ""


def without_strays(images: Images) -> LabelledImages:
    """`images` without the few that lie outside the class folders; unchanged when there are none, or many."""
    if images.labels is not None or not isinstance(images, Folder) or len(images.labelling.names) < 2:
        return LabelledImages(images, "")
    stray = np.flatnonzero(images.labelling.numbers < 0)
    if len(stray) > FEW * len(images):
        return LabelledImages(images, "")
    numbers, names = images.labelling
    return _left_out(dataclasses.replace(images, labels=numbers, classes=names), stray)


def with_classes(images: Images, classes: Sequence[str], what: str) -> LabelledImages:
    """`images` with their labels as indices into `classes`, some of which may have no image.

    Raises:
        DataError: no labels, or classes that are not among `classes`.
    """
    if not isinstance(images, Folder):
        _check_known(require_labels(images, what).classes, classes, what)
        if list(images.classes) != list(classes)[: len(images.classes)]:  # the last classes may have no image
            raise DataError(f"{what} must have the same classes as the training images, in the same order")
        return LabelledImages(images, "")
    numbers, names = images.labelling
    stray = np.flatnonzero(numbers < 0)
    if not names or len(stray) > FEW * len(images):
        raise DataError(f"{what} have no labels: {_why(images)}. {HOW}")
    _check_known(names, classes, what)
    new = np.array([list(classes).index(name) for name in names] + [-1], dtype=np.int64)  # the last one is index -1
    return _left_out(dataclasses.replace(images, labels=new[numbers], classes=list(classes)), stray)


def _left_out(images: Folder, stray: np.ndarray) -> LabelledImages:
    if not len(stray):
        return LabelledImages(images, "")
    names = first_few([images.names[int(i)] for i in stray])
    rest = Subset(images, np.delete(np.arange(len(images)), stray))
    return LabelledImages(rest, f"left out, outside the class folders and so without a label: {names}")


def _check_known(names: Sequence[str], classes: Sequence[str], what: str) -> None:
    unknown = [name for name in names if name not in set(classes)]
    if unknown:
        raise DataError(
            f"{what} have {len(unknown)} classes that are not among those of the training images, such as "
            f"{first_few(unknown)}: training and test images need the same class folders"
        )


def _why(images: Images) -> str:
    """The reason why `images` have no labels."""
    while isinstance(images, Subset):
        images = images.images
    if not isinstance(images, Folder):
        return f"these {len(images):,} images come without labels"
    numbers, names = images.labelling
    stray = np.flatnonzero(numbers < 0)
    if len(stray) == len(images):
        return f"none of the {len(images):,} lies in a class folder, and no list gives one a label"
    if len(stray):
        some = first_few([images.names[int(i)] for i in stray])
        return f"{len(stray):,} of the {len(images):,} lie outside the class folders ({first_few(names)}): {some}"
    return f"all {len(images):,} are of one class, {escape(names[0])}"
