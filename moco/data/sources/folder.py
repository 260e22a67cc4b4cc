"""Images on the disk: any folder, flat or nested, labelled or not, several of them, or a file that lists paths."""

import itertools
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from moco.data.decode.decode import EXTENSIONS, BadImage, decode
from moco.data.sources.images import DataError, Images, Labelling, labelling_of
from moco.data.sources.path_list import LIST_SUFFIXES, read_list, what_was_expected
from moco.data.sources.skipped import Skipped, is_system_folder
from moco.text import first_few, shown

__all__ = ["BadImage", "DataError", "Folder", "Images", "Skipped", "find_images"]


SHARD_SUFFIX = ".tar"
_ENDINGS = frozenset(EXTENSIONS)


class Source(NamedTuple):
    """A folder or list that was given. The name of each of its images is `prefix` + a path below `root`."""

    root: str
    prefix: str = ""
    walked: bool = True  # a folder; False: a list file in the folder `root`


@dataclass(frozen=True, eq=False)
class Folder:
    """The images of folders, each sorted by the bytes of its paths, and of lists, each in its own order."""

    names: Sequence[str]
    sizes: Int64[np.ndarray, "n"]  # [bytes]
    mtimes: Int64[np.ndarray, "n"]  # [ns]
    labels: Int64[np.ndarray, "n"] | None
    classes: Sequence[str]
    sources: Sequence[Source]
    origin: Int64[np.ndarray, "n"]  # index into `sources`
    skipped: Skipped
    labelling: Labelling  # of the images that have a label; it exists also where `labels` is None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """The path of image `index`."""
        source = self.sources[self.origin[index]]
        return os.path.join(source.root, self.names[index][len(source.prefix) :])

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return decode(self.path(index))
        except BadImage as bad:
            raise BadImage(self.names[index], bad.reason) from bad


@dataclass
class _Found:
    """Image files as columns: a tuple for each of a million files would keep the garbage collector busy."""

    paths: list[str] = field(default_factory=list)  # below the root of their source
    sizes: list[int] = field(default_factory=list)
    mtimes: list[int] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)

    def add(self, path: str, status: os.stat_result, label: str | None) -> None:
        self.paths.append(path)
        self.sizes.append(status.st_size)
        self.mtimes.append(status.st_mtime_ns)
        self.labels.append(label)

    def by_bytes_of_path(self) -> "_Found":
        is_ascii = "".join(self.paths).isascii()  # then sorting by characters gives the same order, faster
        keys: list[str] | list[bytes] = self.paths if is_ascii else list(map(os.fsencode, self.paths))
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return _Found(
            [self.paths[i] for i in order], [self.sizes[i] for i in order], [self.mtimes[i] for i in order],
            [self.labels[i] for i in order],
        )  # fmt: skip


def find_images(sources: str | Path | Sequence[str | Path], *, single: bool = False) -> Folder:
    """The images of `sources`: folders, list files (.txt, .lst, .tsv, .csv: a path a line, perhaps a label).

    In a folder, an image's label is the directory directly below the folder. There are labels only if all images of all
    sources have one and there are at least two. With several sources, names begin with the name of their source.

    Args:
        single: an image file given by its own name is a source too. Its name gets no prefix.

    Raises:
        DataError: a source that does not exist, holds no image, or overlaps another; a list that names missing files.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if not given:
        raise DataError("expected at least one folder of images or list file, got none")
    _check_apart([os.fspath(source) for source in given])
    skipped = Skipped()
    found = [_find_in(os.fspath(source), skipped, single=single) for source in given]
    roots = [os.fspath(one) if os.path.isdir(one) else os.path.dirname(os.path.abspath(one)) for one in given]
    prefixes = _prefixes([Path(os.path.abspath(source)) for source in given])
    labelling = labelling_of([label for one in found for label in one.labels])
    return Folder(
        names=[prefix + path for prefix, one in zip(prefixes, found, strict=True) for path in one.paths],
        sizes=np.concatenate([np.array(one.sizes, dtype=np.int64) for one in found]),
        mtimes=np.concatenate([np.array(one.mtimes, dtype=np.int64) for one in found]),
        labels=labelling.numbers if labelling.whole else None,
        classes=labelling.names if labelling.whole else [],
        sources=[
            Source(os.path.abspath(root), prefix, os.path.isdir(one))
            for root, prefix, one in zip(roots, prefixes, given, strict=True)
        ],
        origin=np.repeat(np.arange(len(given), dtype=np.int64), [len(one.paths) for one in found]),
        skipped=skipped,
        labelling=labelling,
    )


def _check_apart(sources: list[str]) -> None:
    """Raise DataError where a source lies in another: its images would count twice."""
    inner_follows_outer = sorted((os.path.join(os.path.realpath(source), ""), source) for source in sources)
    for (outer, outer_name), (inner, inner_name) in itertools.pairwise(inner_follows_outer):
        if inner.startswith(outer):
            raise DataError(
                f"{shown(inner_name)} lies in {shown(outer_name)} or is the same, so its images would count twice: "
                "give one of the two"
            )


def _find_in(source: str, skipped: Skipped, *, single: bool) -> _Found:
    if os.path.isdir(source):
        before = skipped.counts.copy()
        images = _walk(source, skipped).by_bytes_of_path()
        if not images.paths:
            skipped_here = Skipped(skipped.counts - before)
            raise DataError(
                f"no images in {shown(source)}: found {skipped_here if skipped_here.counts else 'no files at all'}. "
                f"Files with the endings {' '.join(EXTENSIONS)} are read"
            )
        return images
    check_source(source, single=single)
    return _one_image(source) if source.lower().endswith(EXTENSIONS) else _listed(source)


def check_source(source: str, *, single: bool = False) -> None:
    """Raise DataError for what is neither a folder nor a list file, nor, with `single`, an image file."""
    if os.path.isdir(source):
        return
    if not os.path.exists(source):
        raise DataError(f"{shown(source)} does not exist: give a folder of images, or a file that lists their paths")
    if not source.lower().endswith((*LIST_SUFFIXES, SHARD_SUFFIX, *(EXTENSIONS if single else ()))):
        raise DataError(
            f"{shown(source)} is neither a folder nor a list of paths ({' '.join(LIST_SUFFIXES)}) nor a tar file: "
            "give the folder that holds the images"
        )


def _walk(root: str, skipped: Skipped) -> _Found:
    """The image files below `root`. A directory that is also linked is entered once, under its own name.

    So links to directories are followed only after all real directories.
    """
    found, entered = _Found(), {os.path.realpath(root)}
    directories, links = [""], list[str]()  # paths below root, with a slash at the end; both are stacks
    while directories or links:
        here = directories.pop() if directories else links.pop()
        real = os.path.realpath(os.path.join(root, here))
        if here and real in entered:
            skipped.add(here.rstrip("/"), "directory that was already entered")
            continue
        entered.add(real)
        try:
            with os.scandir(os.path.join(root, here)) as entries:
                inside = list(entries)
        except OSError as error:
            skipped.add(here, f"directory that cannot be read ({(error.strerror or str(error)).lower()})")
            continue
        new, new_links = _sort_entries(inside, here, found, skipped)
        directories += new
        links[:0] = new_links  # a stack: the first link found is followed first
    return found


def _sort_entries(
    entries: list[os.DirEntry[str]], here: str, found: _Found, skipped: Skipped
) -> tuple[list[str], list[str]]:
    """Add images to `found`, others to `skipped`. Returns directories, and links to them, in reverse order."""
    label, others = sys.intern(here.split("/", 1)[0]) if here else None, []
    for entry in entries:
        if (status := _of_plain_image(entry)) is None:
            others.append(entry)
        else:
            found.add(here + entry.name, status, label)
    directories, links = list[str](), list[str]()
    others.sort(key=lambda entry: os.fsencode(entry.name), reverse=True)
    for entry in others:
        status = _look_at(entry)
        if isinstance(status, str):
            skipped.add(here + entry.name, status)
        elif stat.S_ISREG(status.st_mode):
            found.add(here + entry.name, status, label)
        else:
            (links if entry.is_symlink() else directories).append(f"{here}{entry.name}/")
    return directories, links


def _of_plain_image(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The status of a file that is clearly an image, as nearly all are; None: `_look_at` must decide."""
    name = entry.name
    if name[name.rfind(".") :].lower() not in _ENDINGS or name[0] == "." or not entry.is_file(follow_symlinks=False):
        return None
    try:
        return entry.stat()
    except OSError:
        return None


def _look_at(entry: os.DirEntry[str]) -> os.stat_result | str:
    """The status of a directory or image file, or the reason why it is skipped."""
    if entry.name.startswith("."):
        return "hidden"
    try:
        status = entry.stat()
    except OSError:
        return "broken link" if entry.is_symlink() else "file that cannot be looked at"
    if stat.S_ISDIR(status.st_mode):
        return "system folder" if is_system_folder(entry.name) else status
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    extension = os.path.splitext(entry.name)[1].lower()
    if extension not in EXTENSIONS:
        return f"{extension[:20]} file" if extension else "file without an ending"
    return status


def _one_image(source: str) -> _Found:
    """An image file that was given by its own name."""
    status = os.stat(source)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{shown(source)} is not a regular file: give an image, or a folder of images")
    found = _Found()
    found.add(os.path.basename(source), status, None)
    return found


def _listed(source: str) -> _Found:
    """The images that a list file names, in its order."""
    folder = os.path.dirname(os.path.abspath(source))
    images, missing = _Found(), []
    for path, label in read_list(source):
        try:
            status = os.stat(os.path.join(folder, path))
            regular = stat.S_ISREG(status.st_mode)
        except (OSError, ValueError):
            regular, status = False, None
        if regular and status is not None:
            images.add(path, status, label)
        else:
            missing.append(path)
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(missing) + len(images.paths):,} files listed in {shown(source)} are missing: "
            f"{first_few(missing)}. Paths are taken from the list's own folder, "
            f"{shown(folder)}. {what_was_expected(source)}"
        )
    if not images.paths:
        raise DataError(f"{shown(source)} lists no images: expected a path a line")
    return images


def _prefixes(sources: list[Path]) -> list[str]:
    """The prefix of the names of each source's images: none for one source, otherwise its own name, made unique.

    An image that was given by its own name gets one only if another image has the same name.
    """
    if len(sources) == 1:
        return [""]
    times: Counter[str] = Counter()
    prefixes = []
    for source in sources:
        one_image = source.name.lower().endswith(EXTENSIONS) and not source.is_dir()
        name = source.name if source.is_dir() or one_image else source.stem
        times[name] += 1
        first, later = ("", f"~{times[name]}/") if one_image else (f"{name}/", f"{name}~{times[name]}/")
        prefixes.append(first if times[name] == 1 else later)
    return prefixes
