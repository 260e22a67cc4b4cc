"""Any kind of DATA as images. A new kind of source is a new file in this folder and one entry in KINDS.

torch is imported only for what cannot be a path: the command line opens folders before it imports torch.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from moco.data.remote.urls import are_urls
from moco.data.shards.shards import Shards, are_shards, open_shards
from moco.data.sources.background_scan import BackgroundScan
from moco.data.sources.encoded import EncodedImages
from moco.data.sources.folder import Folder, find_images
from moco.data.sources.images import DataError, Images
from moco.data.sources.path_list import lists_urls
from moco.data.sources.tables import TableImages, is_table, open_tables
from moco.data.sources.zip_archive import ZipImages, is_zip
from moco.text import escape

FEW, LISTED, SHORT = 2000, 0.1, 100_000  # entries of a folder, [s] to list them, [bytes] of a list: quick to open


@runtime_checkable
class MapStyle(Protocol):
    """Items by number, as in a map-style torch data set, a Hugging Face data set, a list or an array."""

    def __getitem__(self, index: int, /) -> Any: ...


Sources = str | Path | Sequence[str | Path] | BackgroundScan | Images | MapStyle


class SourceKind(NamedTuple):
    """A kind of DATA."""

    name: str  # in messages
    accepts: Callable[[Any], bool]
    open: Callable[[Any, bool], Images]  # (data, single); `single`: an image file given by its own name is a source too


def open_images(data: Any, *, single: bool = False, bands: bool = False) -> Images:
    """`data`, one of Sources, as images.

    Args:
        single: an image file given by its own name is a source too.
        bands: the items of a data set may have any number of bands, of any type of numbers.

    Raises:
        DataError: data of no known kind, or data that its kind refuses: a folder without images, an item that is no
            image.
    """
    for kind in SOURCE_KINDS:
        if kind.accepts(data):
            if bands and kind.open is _open_dataset:
                return _open_dataset(data, single, bands=True)
            return kind.open(data, single)
    raise DataError(
        f"expected {', '.join(kind.name for kind in SOURCE_KINDS if kind.name)}; got a {type(data).__name__}"
    )


def open_folder(data: Any, *, single: bool = False) -> Folder:
    """As `open_images`, for callers that need the files themselves. Raises DataError where there are none."""
    images = open_images(data, single=single)
    if not isinstance(images, Folder):
        inside = isinstance(images, EncodedImages)
        what = "images inside of other files: unpack them into a folder first" if inside else f"a {type(data).__name__}"
        raise DataError(f"expected folders or list files, whose images are files; got {what}")
    return images


def open_image_files(data: Any) -> Folder | EncodedImages:
    """As `open_images`, for callers that need the bytes of each file. Raises DataError where there are none."""
    images = open_images(data)
    return images if isinstance(images, EncodedImages) else open_folder(images)


def is_quick_to_open(data: Sequence[str]) -> bool:
    """Whether `data` are folders of few entries, or short list files, on this machine: opening them takes no time."""
    if _are_remote(data) or _are_paths_of_shards(data) or _are_containers(data):
        return False
    try:
        return all(_has_few_entries(one) if os.path.isdir(one) else os.path.getsize(one) < SHORT for one in data)
    except OSError:
        return False


def _has_few_entries(folder: str) -> bool:
    """Whether a folder has at most FEW entries, with those of its folders, and they are listed in LISTED seconds."""
    left, end = FEW, time.monotonic() + LISTED
    for _, folders, files in os.walk(folder):
        left -= len(folders) + len(files)
        if left < 0 or time.monotonic() > end:
            return False
    return True


def list_image_files(images: Images) -> list[str]:
    """The paths of the files that are read for `images`; none for a data set."""
    if isinstance(images, Folder) and images.local:
        return [images.path(index) for index in range(len(images))]
    if isinstance(images, ZipImages):
        return list(images.archives)
    if isinstance(images, TableImages):
        return [str(file) for file in images.files]
    return [str(shard) for shard in images.shards] if isinstance(images, Shards) else []


def _is_scan(data: Any) -> bool:
    return isinstance(data, BackgroundScan)


def _open_scan(data: BackgroundScan, single: bool) -> Images:
    return data.find()


def _are_paths_of_shards(data: Any) -> bool:
    return _is_paths(data) and any(are_shards(one) for one in _several(data))


def _open_shards(data: str | Path | Sequence[str | Path], single: bool) -> Images:
    others = [str(one) for one in _several(data) if not are_shards(one)]
    if others:
        raise DataError(f"expected shards (tar files) only, or folders and lists only; {escape(others[0])} is no shard")
    return open_shards(_several(data))


class Container(NamedTuple):
    """A kind of file or folder that images lie in, and that is given by its path."""

    name: str  # in messages
    accepts: Callable[[str | Path], bool]
    open: Callable[[Sequence[str | Path]], Images]


CONTAINERS = (
    Container("zip file", is_zip, ZipImages),
    Container("Parquet file or saved data set", is_table, open_tables),
)


def _container_of(data: Any) -> Container | None:
    """The kind of container that one of the paths is; None if none is."""
    paths = _several(data) if _is_paths(data) else []
    return next((kind for kind in CONTAINERS for one in paths if kind.accepts(one)), None)


def _are_containers(data: Any) -> bool:
    return _container_of(data) is not None


def _open_containers(data: str | Path | Sequence[str | Path], single: bool) -> Images:
    kind = _container_of(data)
    assert kind is not None
    others = [str(one) for one in _several(data) if not kind.accepts(one)]
    if others:
        raise DataError(f"expected only sources of one kind: {escape(others[0])} is no {kind.name}")
    return kind.open(_several(data))


def _several(data: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [data] if isinstance(data, str | Path) else data


def _is_paths(data: Any) -> bool:
    several = isinstance(data, list | tuple) and all(isinstance(one, str | Path) for one in data)
    return several or isinstance(data, str | Path)


def _open_paths(data: str | Path | Sequence[str | Path], single: bool) -> Images:
    return find_images(data, single=single)


def _is_images(data: Any) -> bool:
    return callable(getattr(data, "read", None)) and hasattr(data, "names")


def _open_images(data: Images, single: bool) -> Images:
    return data


def _is_dataset(data: Any) -> bool:
    from moco.data.sources.torch_dataset import is_dataset

    return is_dataset(data)


def _open_dataset(data: Any, single: bool, bands: bool = False) -> Images:
    from moco.data.sources.torch_dataset import open_dataset

    return open_dataset(data, bands=bands)


def _are_remote(data: Any) -> bool:
    return are_urls(data) or (_is_paths(data) and any(map(lists_urls, _several(data))))


def _open_remote(data: str | Path | Sequence[str | Path], single: bool) -> Images:
    from moco.data.remote.open import open_remote

    return open_remote([data] if isinstance(data, str | Path) else list(data), single=single)


SOURCE_KINDS = (  # in the order in which they are tried
    SourceKind("", _is_scan, _open_scan),
    SourceKind("", _are_remote, _open_remote),
    SourceKind("", _are_paths_of_shards, _open_shards),
    SourceKind("", _are_containers, _open_containers),
    SourceKind("folders, list files, shards, zip files, tables or URLs", _is_paths, _open_paths),
    SourceKind("", _is_images, _open_images),
    SourceKind("a map-style Dataset, a list of images, or an array N x H x W x C", _is_dataset, _open_dataset),
)
