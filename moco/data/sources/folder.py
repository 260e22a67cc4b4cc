"""Images on the disk: any folder, flat or nested, labelled or not, several of them, or a file that lists paths."""

import itertools
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from moco.data.decode.bands import Raw, decode_bands
from moco.data.decode.decode import EXTENSIONS, BadImage, decode, open_file, reason_of
from moco.data.decode.scaled import Choose, Scaled, decode_scaled
from moco.data.decode.tiff import File
from moco.data.remote.urls import check_url, is_url
from moco.data.sources.file_status import MISSING, FileStatus, file_status
from moco.data.sources.images import DataError, Images, LabelCodes, Labelling
from moco.data.sources.names import Chosen, Names, join_names, pack_names, with_prefix
from moco.data.sources.path_list import LIST_SUFFIXES, read_list, what_was_expected
from moco.data.sources.skipped import Skipped
from moco.data.sources.walk import InDirectory, walk
from moco.text import escape, first_few

__all__ = ["BadImage", "DataError", "Folder", "Images", "Skipped", "find_images"]


SHARD_SUFFIX, ZIP_SUFFIX, TABLE_SUFFIX = ".tar", ".zip", ".parquet"  # of files whose images are read in place


class Source(NamedTuple):
    """A folder or list that was given. The name of each of its images is `prefix` + a path below `root`."""

    root: str
    prefix: str = ""
    walked: bool = True  # a folder; False: a list file in the folder `root`


@dataclass(frozen=True, eq=False)
class Folder:
    """The images of folders, each sorted by the bytes of its paths, and of lists, each in its own order."""

    names: Names
    sizes: Int64[np.ndarray, "n"]  # [bytes]
    mtimes: Int64[np.ndarray, "n"]  # [ns]
    labels: Int64[np.ndarray, "n"] | None
    classes: Sequence[str]
    sources: Sequence[Source]
    origin: Int32[np.ndarray, "n"]  # index into `sources`
    skipped: Skipped
    labelling: Labelling  # of the images that have a label; it exists also where `labels` is None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def local(self) -> bool:
        """Whether the images are files, which `path` names; False: they are in a store."""
        return True

    def path(self, index: int) -> str:
        """The path of image `index`."""
        source = self.sources[self.origin[index]]
        return os.path.join(source.root, self.names[index][len(source.prefix) :])

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return decode(self.path(index))
        except BadImage as bad:
            raise BadImage(self.names[index], bad.reason) from bad

    def read_bands(self, index: int) -> Raw:
        """All bands of image `index`, as stored. Raises BadImage."""
        try:
            with self.open(index) as file:
                return decode_bands(file)
        except ImportError as error:
            raise DataError(str(error)) from error
        except Exception as error:
            raise BadImage(self.names[index], reason_of(error)) from error

    def read_scaled(self, index: int, choose: Choose) -> Scaled:
        """Image `index` at the scale that `choose` gives for its size. Raises BadImage."""
        try:
            return decode_scaled(self.path(index), choose)
        except BadImage as bad:
            raise BadImage(self.names[index], bad.reason) from bad

    def open(self, index: int) -> File:
        """The file of image `index`, open. Raises as `open_file`."""
        return open_file(self.path(index))


class _FoundFiles(NamedTuple):
    """The image files of a source, as columns."""

    names: Names  # paths below the root of the source
    status: FileStatus
    labels: LabelCodes


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
    prefixes = make_prefixes([Path(os.path.abspath(source)) for source in given])
    labels = LabelCodes()
    for one in found:
        labels.extend(one.labels)
    labelling = labels.labelling()
    return Folder(
        names=join_names([with_prefix(prefix, one.names) for prefix, one in zip(prefixes, found, strict=True)]),
        sizes=_concatenated([one.status.sizes for one in found]),
        mtimes=_concatenated([one.status.mtimes for one in found]),
        labels=labelling.numbers if labelling.whole else None,
        classes=labelling.names if labelling.whole else [],
        sources=[
            Source(os.path.abspath(root), prefix, os.path.isdir(one))
            for root, prefix, one in zip(roots, prefixes, given, strict=True)
        ],
        origin=np.repeat(np.arange(len(given), dtype=np.int32), [len(one.names) for one in found]),
        skipped=skipped,
        labelling=labelling,
    )


def _concatenated(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _check_apart(sources: list[str]) -> None:
    """Raise DataError where a source lies in another: its images would count twice."""
    inner_follows_outer = sorted((os.path.join(os.path.realpath(source), ""), source) for source in sources)
    for (outer, outer_name), (inner, inner_name) in itertools.pairwise(inner_follows_outer):
        if inner.startswith(outer):
            raise DataError(
                f"{escape(inner_name)} lies in {escape(outer_name)} or is the same, so its images would count twice: "
                "give one of the two"
            )


def _find_in(source: str, skipped: Skipped, *, single: bool) -> _FoundFiles:
    if os.path.isdir(source):
        before = skipped.counts.copy()
        images = _looked_at(source, walk(source, skipped), skipped)
        if not len(images.names):
            skipped_here = Skipped(skipped.counts - before)
            raise DataError(
                f"no images in {escape(source)}: found {skipped_here if skipped_here.counts else 'no files at all'}. "
                f"Files with the endings {' '.join(EXTENSIONS)} are read"
            )
        return images
    check_source(source, single=single)
    return _one_image(source) if source.lower().endswith(EXTENSIONS) else _listed(source)


def check_source(source: str, *, single: bool = False) -> None:
    """Raise DataError for what is neither a folder nor a list file nor a URL, nor, with `single`, an image file."""
    if is_url(source):
        check_url(source)
        return
    if os.path.isdir(source):
        return
    if not os.path.exists(source):
        raise DataError(f"{escape(source)} does not exist: give a folder of images, or a file that lists their paths")
    if not os.path.isfile(source):
        raise DataError(f"{escape(source)} is a pipe, a socket or a device: give a folder of images, or a file")
    inside = (SHARD_SUFFIX, ZIP_SUFFIX, TABLE_SUFFIX)
    if not source.lower().endswith((*LIST_SUFFIXES, *inside, *(EXTENSIONS if single else ()))):
        raise DataError(
            f"{escape(source)} is neither a folder nor a list of paths ({' '.join(LIST_SUFFIXES)}) nor a tar, zip "
            "or Parquet file: give the folder that holds the images"
        )


def _looked_at(root: str, found: list[InDirectory], skipped: Skipped) -> _FoundFiles:
    """The images of a folder, sorted by the bytes of their paths, with sizes and times. `found` is emptied."""
    found.sort(key=lambda one: os.fsencode(one.path))
    ends = [os.fsencode(end) for one in found for end in (one.names[0], one.names[-1])]
    labels = LabelCodes()
    for one in found:
        labels.add(one.path.partition("/")[0] or None, len(one.names))
    names = join_names([one.names for one in found])
    found.clear()
    places = None
    if sorted(ends) != ends:  # a directory has images and directories, whose paths lie between those of its images
        paths = [os.fsencode(name) for name in names]
        places = np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64)
        names = names.take(places)
        labels.take(places)
    status = file_status(root, names)
    there = np.flatnonzero(status.sizes != MISSING)
    if len(there) == len(names):
        return _FoundFiles(names, status, labels)
    for place in np.flatnonzero(status.sizes == MISSING).tolist():
        skipped.add(names[place], "file that cannot be looked at")
    labels.take(there)
    return _FoundFiles(names.take(there), FileStatus(status.sizes[there], status.mtimes[there]), labels)


def _one_image(source: str) -> _FoundFiles:
    """An image file that was given by its own name."""
    status = os.stat(source)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{escape(source)} is not a regular file: give an image, or a folder of images")
    found = FileStatus(np.array([status.st_size]), np.array([status.st_mtime_ns]))
    return _FoundFiles(pack_names([os.path.basename(source)]), found, LabelCodes.none(1))


def _listed(source: str) -> _FoundFiles:
    """The images that a list file names, in its order."""
    folder = os.path.dirname(os.path.abspath(source))
    names, labels = read_list(source)
    if not len(names):
        raise DataError(f"{escape(source)} lists no images: expected a path a line")
    status = file_status(folder, names)
    missing = np.flatnonzero(status.sizes == MISSING)
    if len(missing):
        raise DataError(
            f"{len(missing):,} of {len(names):,} files listed in {escape(source)} are missing: "
            f"{first_few(Chosen(names, missing))}. Paths are taken from the list's own folder, "
            f"{escape(folder)}. {what_was_expected(source)}"
        )
    return _FoundFiles(names, status, labels)


def make_prefixes(sources: list[Path]) -> list[str]:
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
