"""`Shards`: the images in tar files, read in place by their index."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from moco.data.decode.decode import EXTENSIONS
from moco.data.shards.index import Index, open_index
from moco.data.sources.encoded import EncodedImages
from moco.data.sources.folder import SHARD_SUFFIX
from moco.data.sources.images import DataError
from moco.files import cache_folder, read_json
from moco.text import escape

GAP = 2**16  # [bytes] between two images that are read together: labels and facts lie between them
FACTS = "pack.json"  # of a folder by `moco pack`: settings, and each finished shard with its SHA-256


class Shards(EncodedImages):
    """The images of `shards` in their order: of the shards, then of the images in each. Threads may share them.

    Nothing is extracted: an image is read from its place in the tar file into memory.

    Raises:
        DataError: a shard that is no tar file, or no image in any.
    """

    def __init__(self, shards: Sequence[Path], *, report: Callable[[str], None] = lambda _: None):
        self.shards = tuple(shards)
        self.index: Index = open_index(self.shards, cache=cache_folder(), report=report)

    def __reduce__(self) -> tuple[type["Shards"], tuple[tuple[Path, ...]]]:
        return Shards, (self.shards,)  # another process maps the index itself

    @property
    def names(self) -> Sequence[str]:
        return self.index.names

    @property
    def labels(self) -> Int64[np.ndarray, "n"] | None:
        return self.index.records["label"] if self.index.labelled else None

    @property
    def classes(self) -> Sequence[str]:
        return self.index.classes if self.index.labelled else ()

    @property
    def sizes(self) -> Int64[np.ndarray, "n"]:
        return self.index.records["size"]

    @property
    def mtimes(self) -> Int64[np.ndarray, "n"]:
        return self.index.records["mtime"]

    @property
    def counts(self) -> Int64[np.ndarray, " s"]:
        """The number of images in each shard."""
        return self.index.counts

    def __len__(self) -> int:
        return len(self.index.records)

    def read_bytes(self, index: int) -> bytes:
        """The file of image `index`. Raises OSError, and ValueError if its shard was cut short."""
        record = self.index.records[index]
        size = int(record["size"])
        descriptor = os.open(self.shards[record["shard"]], os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            content = os.pread(descriptor, size, int(record["offset"]))
        finally:
            os.close(descriptor)
        if len(content) < size:
            raise ValueError(f"its shard {escape(self.shards[record['shard']].name)} was cut short")
        return content

    def read_ahead(self, ids: Int64[np.ndarray, " N"]) -> None:
        """Ask the system to read images `ids`, with one request for those that follow each other. It does not wait."""
        if not hasattr(os, "posix_fadvise"):
            return
        images = np.sort(ids)
        records = self.index.records[images]
        starts, ends, shards = records["offset"], records["offset"] + records["size"], records["shard"]
        apart = (np.diff(images) > 1) | (shards[1:] != shards[:-1]) | (starts[1:] - ends[:-1] > GAP)
        begins = np.flatnonzero(apart) + 1
        for run in np.split(np.arange(len(ids)), begins):
            first, last = run[0], run[-1]
            with suppress(OSError):  # the read that follows says what is wrong
                descriptor = os.open(self.shards[shards[first]], os.O_RDONLY | os.O_CLOEXEC)
                try:
                    length = int(ends[last] - starts[first])
                    os.posix_fadvise(descriptor, int(starts[first]), length, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(descriptor)


def are_shards(source: str | Path) -> bool:
    """Whether `source` is a tar file, or a folder that has tar files and neither images nor folders."""
    return bool(find_shards(source))


def find_shards(source: str | Path) -> list[Path]:
    """The tar files of `source`, one of them or a folder of them, sorted by the bytes of their names; else none."""
    path = Path(source)
    if path.is_file():
        return [path] if path.suffix == SHARD_SUFFIX else []
    if not path.is_dir():
        return []
    tars: list[Path] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(EXTENSIONS) or entry.is_dir():
                    return []  # at once: a folder may have a million images
                if entry.name.endswith(SHARD_SUFFIX) and entry.is_file():
                    tars.append(Path(entry.path))
    except OSError:
        return []
    return sorted(tars, key=lambda one: os.fsencode(one.name))


def check_whole(folder: Path) -> None:
    """Raise DataError if `moco pack` has not finished this folder: a run would miss images without a word."""
    facts = read_json(folder / FACTS)
    try:
        settings, written = facts["settings"], len(facts["shards"])  # pyright: ignore
        expected = -(-settings["images"] // settings["shard_size"])
    except (TypeError, KeyError, ZeroDivisionError):
        return  # no folder of moco pack
    if written < expected:
        raise DataError(
            f"{escape(str(folder))} has {written:,} of {expected:,} shards: moco pack was interrupted, or still "
            "writes. Give its command again, which writes the others"
        )


def open_shards(sources: Sequence[str | Path], *, report: Callable[[str], None] = lambda _: None) -> Shards:
    """The images of `sources`, tar files or folders of them, all in one folder. Raises DataError."""
    shards = [shard for source in sources for shard in find_shards(source)]
    for source in sources:
        if Path(source).is_dir():
            check_whole(Path(source))
    if len({os.path.realpath(folder) for folder in {shard.parent for shard in shards}}) > 1:
        raise DataError("expected the shards in one folder, got several folders: put them, or links to them, into one")
    if len(set(shards)) < len(shards):
        raise DataError("a shard is given twice, so its images would count twice: give it once")
    return Shards(shards, report=report)
