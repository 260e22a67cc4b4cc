"""Images that belong together, by a rule: frames of a clip, slices of a scan, pictures of one product."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from moco.data.sources.images import DataError, Images
from moco.text import escape

IMAGE, FOLDER = "image", "folder"


def number_groups(names: Sequence[str], rule: str) -> Int64[np.ndarray, " n"]:
    """The number of each image's group. A group has the number of its first image.

    Args:
        names: of the images, with forward slashes.
        rule: "image": every image is a group; "folder": the images of one folder; otherwise a regular expression
            (`re.search`) on the name: images with the same text in its first parentheses, or without parentheses the
            same match. A name that it does not match is a group of its own.
    """
    if rule == IMAGE:
        return np.arange(len(names))
    find = _folder if rule == FOLDER else _finder(rule)
    first: dict[str, int] = {}
    keys = map(find, names)
    numbers = [index if key is None else first.setdefault(key, index) for index, key in enumerate(keys)]
    return np.array(numbers, dtype=np.int64)


def group_images(names: Sequence[str], rule: str) -> Int64[np.ndarray, " n"]:
    """As `number_groups`. Raises DataError if the rule puts no two images together, or all of them."""
    groups = number_groups(names, rule)
    count = len(np.unique(groups))
    if rule != IMAGE and count == 1 < len(groups):
        raise DataError(
            f"data.groups={rule!r} puts all {len(groups):,} images together, so no key would be a negative: expected a "
            f"rule with several groups; the first image is {escape(names[0])}"
        )
    if rule != IMAGE and count == len(groups):
        example = "" if not len(groups) else f", as in {escape(names[0])}"
        raise DataError(
            f"data.groups={rule!r} puts no two of {len(groups):,} images together: expected 'image', 'folder', or a "
            f"regular expression on the names of the images{example}, whose parentheses hold what images that belong "
            "together share, such as '(.*)_frame'"
        )
    return groups


def groups_of(images: Images, rule: str | None) -> Int64[np.ndarray, " n"] | None:
    """The groups of `images`; None where every image is one. Raises DataError as `group_images`."""
    return None if rule in (None, IMAGE) else group_images(images.names, rule)


def describe_groups(names: Sequence[str], rule: str) -> str:
    """How many groups there are, and of how many images."""
    if rule == IMAGE:
        return "every image for itself"
    _, counts = np.unique(group_images(names, rule), return_counts=True)
    alone = int((counts == 1).sum())
    text = f"{len(counts):,} groups of up to {counts.max():,} images by {escape(rule)}"
    return f"{text}, {alone:,} of them of one image" if alone else text


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _finder(rule: str) -> Callable[[str], str | None]:
    search = re.compile(rule).search

    def find(name: str) -> str | None:
        found = search(name)
        return None if found is None else found.group(1 if found.re.groups else 0)

    return find
