"""The images of a run: name, size and time of change of each file, so that a resumed run notices changes.

The file is JSON Lines, compressed when its name ends in .gz: `["cats/1.jpg", 48213, 1700000000000000000]` for an image.
"""

import functools
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Int64

from moco.data.shards.shards import Shards
from moco.data.sources.images import DataError, Images
from moco.data.sources.names import Chosen, hashes_of, pack_names
from moco.files import write_atomically
from moco.text import escape, first_few

ROWS = 2**14  # lines that are made or read together
BY_SHARD = 10_000_000  # images: a manifest of all would take longer to compare than the run to start
LINE = 64  # [bytes] of a line, about


@dataclass(frozen=True, eq=False)
class Manifest:
    """Name, size [bytes] and time of change [ns] of each image, in their order."""

    names: Sequence[str]
    sizes: Int64[np.ndarray, "n"]
    mtimes: Int64[np.ndarray, "n"]
    unit: str = "image"  # what a row is

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the lines. Known, once `lines` has come to its end."""
        for _ in self.lines():
            pass
        return self.__dict__["fingerprint"]

    def lines(self) -> Iterator[bytes]:
        """What is in the file, not compressed: ROWS lines at a time."""
        names, digest = iter(self.names), hashlib.sha256()
        for start in range(0, len(self.names), ROWS):
            some = slice(start, start + ROWS)
            rows = zip(self.sizes[some].tolist(), self.mtimes[some].tolist(), strict=True)
            lines = [f"[{encode_basestring_ascii(next(names))}, {size}, {mtime}]\n" for size, mtime in rows]
            content = "".join(lines).encode("ascii")
            digest.update(content)
            yield content
        self.__dict__["fingerprint"] = digest.hexdigest()  # the cache of the property


def manifest_of(images: Images) -> Manifest:
    """The manifest of `images`. Of more than BY_SHARD images in shards, its rows are the shards."""
    if isinstance(images, Shards) and images.shards and len(images) > BY_SHARD:
        status = [shard.stat() for shard in images.shards]
        sizes, mtimes = ([getattr(one, name) for one in status] for name in ("st_size", "st_mtime_ns"))
        names = [shard.name for shard in images.shards]
        return Manifest(names, np.array(sizes, dtype=np.int64), np.array(mtimes, dtype=np.int64), "shard")
    return Manifest(images.names, images.sizes, images.mtimes)


def write_manifest(manifest: Manifest, file: Path) -> None:
    """Write it to `file`, atomically. Raises OSError."""

    def write(out: IO[bytes]) -> None:
        if file.suffix != ".gz":
            out.writelines(manifest.lines())
            return
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=out, mtime=0) as compressed:
            for lines in manifest.lines():
                compressed.write(lines)

    write_atomically(file, write)


def read_manifest(file: Path) -> Manifest:
    """The manifest in `file`. Raises OSError, and DataError when it is damaged."""
    numbers: list[np.ndarray] = []

    def names() -> Iterator[str]:
        with _opened(file) as content:
            while lines := content.readlines(ROWS * LINE):
                rows = json.loads(b"[%s]" % b",".join(lines))
                numbers.append(np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 2))
                yield from (str(name) for name, _, _ in rows)

    with _damage_reported(file):
        found = pack_names(names())
        columns = np.concatenate([*numbers, np.zeros((0, 2), dtype=np.int64)])
        return Manifest(found, columns[:, 0].copy(), columns[:, 1].copy())


def changes_since(file: Path, now: Manifest) -> list[str]:
    """The changes from the manifest in `file` to `now`. Raises as `read_manifest`."""
    with _damage_reported(file), _opened(file) as content:
        same = all(content.read(len(lines)) == lines for lines in now.lines()) and not content.read(1)
    return [] if same else manifest_changes(read_manifest(file), now)  # equal bytes need not be parsed


def _opened(file: Path) -> BufferedIOBase:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")


@contextmanager
def _damage_reported(file: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"the manifest {escape(str(file))} is damaged ({error}). Start a new run") from error


def manifest_changes(old: Manifest, new: Manifest) -> list[str]:
    """A sentence for each kind of change between two manifests; none when they are the same."""
    if old.fingerprint == new.fingerprint:
        return []
    then, after = _rows_by_name(old.names), _rows_by_name(new.names)
    both, old_place, new_place = np.intersect1d(then.hashes, after.hashes, assume_unique=True, return_indices=True)
    was, now = then.last[old_place], after.last[new_place]
    changed = (old.sizes[was] != new.sizes[now]) | (old.mtimes[was] != new.mtimes[now])
    sentences = [
        _sentence(new.unit, "added", new.names, after.first[~np.isin(after.hashes, both)]),
        _sentence(new.unit, "removed", old.names, then.first[~np.isin(then.hashes, both)]),
        _sentence(new.unit, "changed (in size or time of change)", old.names, then.first[old_place][changed]),
    ]
    found = [sentence for sentence in sentences if sentence]
    return found or [f"The {new.unit}s are the same, but in another order, or some are listed more or less often."]


class _Rows(NamedTuple):
    """Each different name once, by its hash, and the first and the last row that has it."""

    hashes: Int64[np.ndarray, " m"]
    first: Int64[np.ndarray, " m"]
    last: Int64[np.ndarray, " m"]


def _rows_by_name(names: Sequence[str]) -> _Rows:
    hashes = hashes_of(names, len(names))
    found, first = np.unique(hashes, return_index=True)
    last = len(hashes) - 1 - np.unique(hashes[::-1], return_index=True)[1]
    return _Rows(found, first, last)


def _sentence(unit: str, what: str, names: Sequence[str], rows: np.ndarray) -> str:
    if not len(rows):
        return ""
    some = first_few(Chosen(names, np.sort(rows)))
    return f"{len(rows):,} {unit}{' was' if len(rows) == 1 else 's were'} {what}: {some}."
