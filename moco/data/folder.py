"""Images on the disk: any folder, flat or nested, labelled or not, several of them, or a file that lists paths."""

import itertools
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from moco.data.decode import EXTENSIONS, BadImage, decode, shown
from moco.data.images import DataError, Images
from moco.data.lists import LIST_SUFFIXES, read_list

__all__ = ["BadImage", "DataError", "Folder", "Images", "Skipped", "find_images"]


@dataclass
class Skipped:
    """What a walk through folders left out: how many for which reason, and the first of them by name."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, str] = field(default_factory=dict)  # path -> reason, at most LIMIT of them

    LIMIT = 1000

    def add(self, path: str, reason: str) -> None:
        self.counts[reason if reason in self.counts or len(self.counts) < self.LIMIT else "other"] += 1
        if len(self.names) < self.LIMIT:
            self.names[path] = reason

    def __str__(self) -> str:
        """For a message: `12 x .heic file, 3 x hidden`."""
        return ", ".join(f"{count:,} x {shown(reason)}" for reason, count in self.counts.most_common(8))


class Source(NamedTuple):
    """A folder or list that was asked for: names of its images are `prefix` + a path below `root`."""

    root: str
    prefix: str = ""


@dataclass(frozen=True, eq=False)
class Folder:
    """The images of one or several folders, each sorted by the bytes of its paths, or of lists, in their order."""

    names: Sequence[str]
    sizes: Int64[np.ndarray, "n"]  # [bytes]
    mtimes: Int64[np.ndarray, "n"]  # [ns]
    labels: Int64[np.ndarray, "n"] | None
    classes: Sequence[str]
    sources: Sequence[Source]
    origin: Int64[np.ndarray, "n"]  # the source of each image
    skipped: Skipped

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Where image `index` is."""
        source = self.sources[self.origin[index]]
        return os.path.join(source.root, self.names[index][len(source.prefix) :])

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return decode(self.path(index))
        except BadImage as bad:
            raise BadImage(self.names[index], bad.reason) from bad


class _Found(NamedTuple):
    """One image file."""

    path: str  # below the root of its source
    size: int
    mtime: int
    label: str | None


def find_images(sources: str | Path | Sequence[str | Path]) -> Folder:
    """The images of `sources`: folders, or list files (.txt, .lst, .tsv, .csv: a path a line, perhaps a label).

    In a folder, the first directory below it is the label of an image, when all images of all sources have a label and
    there are at least two labels. With several sources, names begin with the name of their source.

    Raises:
        DataError: a source that does not exist, holds no image, or overlaps another; a list that names missing files.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if not given:
        raise DataError("expected at least one folder of images or list file, got none")
    _check_apart([os.fspath(source) for source in given])
    skipped = Skipped()
    found = [_find_in(os.fspath(source), skipped) for source in given]
    roots = [os.fspath(one) if os.path.isdir(one) else os.path.dirname(os.path.abspath(one)) for one in given]
    prefixes = _prefixes([Path(os.path.abspath(source)) for source in given])
    every = [image for images in found for image in images]
    labels, classes = _labels([image.label for image in every])
    return Folder(
        names=[prefix + image.path for prefix, images in zip(prefixes, found, strict=True) for image in images],
        sizes=np.array([image.size for image in every], dtype=np.int64),
        mtimes=np.array([image.mtime for image in every], dtype=np.int64),
        labels=labels,
        classes=classes,
        sources=[Source(os.path.abspath(root), prefix) for root, prefix in zip(roots, prefixes, strict=True)],
        origin=np.repeat(np.arange(len(given), dtype=np.int64), [len(images) for images in found]),
        skipped=skipped,
    )


def _check_apart(sources: list[str]) -> None:
    """No source may lie in another: its images would count twice."""
    inner_follows_outer = sorted((os.path.join(os.path.realpath(source), ""), source) for source in sources)
    for (outer, outer_name), (inner, inner_name) in itertools.pairwise(inner_follows_outer):
        if inner.startswith(outer):
            raise DataError(
                f"{shown(inner_name)} lies in {shown(outer_name)} or is the same, so its images would count twice: "
                "give one of them"
            )


def _find_in(source: str, skipped: Skipped) -> list[_Found]:
    if os.path.isdir(source):
        before = skipped.counts.copy()
        images = sorted(_walk(source, skipped), key=lambda image: os.fsencode(image.path))
        if not images:
            left_out = Skipped(skipped.counts - before)
            raise DataError(
                f"no images in {shown(source)}: found {left_out if left_out.counts else 'no files at all'}. "
                f"Files with the endings {' '.join(EXTENSIONS)} are read"
            )
        return images
    if not os.path.exists(source):
        raise DataError(f"{shown(source)} does not exist: give a folder of images, or a file that lists their paths")
    if not source.lower().endswith(LIST_SUFFIXES):
        raise DataError(
            f"{shown(source)} is neither a folder nor a list of paths ({' '.join(LIST_SUFFIXES)}): "
            "give the folder that holds the images"
        )
    return _listed(source)


def _walk(root: str, skipped: Skipped) -> Iterator[_Found]:
    """The image files below `root`; a directory that is reached twice, by a link, is entered once."""
    directories, entered = [""], {os.path.realpath(root)}
    while directories:
        here = directories.pop()
        try:
            with os.scandir(os.path.join(root, here)) as entries:
                inside = sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=True)
        except OSError as error:
            skipped.add(here, f"directory that cannot be read ({(error.strerror or str(error)).lower()})")
            continue
        for entry in inside:  # in reverse, so that the stack of directories is worked through in order
            path = here + entry.name
            status = _look_at(entry)
            if isinstance(status, str):
                skipped.add(path, status)
            elif stat.S_ISREG(status.st_mode):
                label = sys.intern(path.split("/", 1)[0]) if here else None
                yield _Found(path, status.st_size, status.st_mtime_ns, label)
            elif (real := os.path.realpath(entry.path)) in entered:
                skipped.add(path, "directory that was already entered")
            else:
                entered.add(real)
                directories.append(path + "/")


def _look_at(entry: os.DirEntry[str]) -> os.stat_result | str:
    """The status of a directory or image file, or else why it is skipped."""
    if entry.name.startswith(".") or entry.name == "__MACOSX":
        return "hidden"
    try:
        status = entry.stat()
    except OSError:
        return "broken link" if entry.is_symlink() else "file that cannot be looked at"
    if stat.S_ISDIR(status.st_mode):
        return status
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    extension = os.path.splitext(entry.name)[1].lower()
    if extension not in EXTENSIONS:
        return f"{extension[:20]} file" if extension else "file without an ending"
    return status


def _listed(source: str) -> list[_Found]:
    """The images that a list file names, in its order."""
    folder = os.path.dirname(os.path.abspath(source))
    images, missing = [], []
    for path, label in read_list(source):
        try:
            status = os.stat(os.path.join(folder, path))
            regular = stat.S_ISREG(status.st_mode)
        except (OSError, ValueError):
            regular, status = False, None
        if regular and status is not None:
            images.append(_Found(path, status.st_size, status.st_mtime_ns, label))
        else:
            missing.append(path)
    if missing:
        some = ", ".join(shown(path) for path in missing[:3])
        raise DataError(
            f"{len(missing):,} of {len(missing) + len(images):,} files listed in {shown(source)} are missing: {some}"
            f"{', ...' if len(missing) > 3 else ''}. Paths are taken from the list's own folder, {shown(folder)}"
        )
    if not images:
        raise DataError(f"{shown(source)} lists no images: expected a path a line")
    return images


def _prefixes(sources: list[Path]) -> list[str]:
    """What the names of each source's images begin with: nothing for one source, else its own name, made unique."""
    if len(sources) == 1:
        return [""]
    times: Counter[str] = Counter()
    prefixes = []
    for source in sources:
        name = source.name if source.is_dir() else source.stem
        times[name] += 1
        prefixes.append(f"{name}/" if times[name] == 1 else f"{name}~{times[name]}/")
    return prefixes


def _labels(names: Iterable[str | None]) -> tuple[np.ndarray | None, list[str]]:
    """The index of each label among the sorted classes, and these; nothing when one is missing or all are the same."""
    names = list(names)
    classes = sorted({name for name in names if name is not None}, key=os.fsencode)
    if None in names or len(classes) < 2:
        return None, []
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in names if name is not None], dtype=np.int64), classes
