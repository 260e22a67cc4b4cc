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
from json.encoder import encode_basestring_ascii
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from moco.data.sources.images import DataError, Images
from moco.files import write_atomically
from moco.text import first_few, shown


@dataclass(frozen=True, eq=False)
class Manifest:
    """Name, size [bytes] and time of change [ns] of each image, in their order."""

    names: Sequence[str]
    sizes: Int64[np.ndarray, "n"]
    mtimes: Int64[np.ndarray, "n"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the lines."""
        return hashlib.sha256(self.lines).hexdigest()

    @functools.cached_property
    def lines(self) -> bytes:
        """What is in the file, not compressed."""
        rows = zip(map(encode_basestring_ascii, self.names), self.sizes.tolist(), self.mtimes.tolist(), strict=True)
        return "".join([f"[{name}, {size}, {mtime}]\n" for name, size, mtime in rows]).encode("ascii")


def manifest_of(images: Images) -> Manifest:
    return Manifest(images.names, images.sizes, images.mtimes)


def write_manifest(manifest: Manifest, file: Path) -> None:
    """Write it to `file`, atomically. Raises OSError."""
    data = manifest.lines
    if file.suffix == ".gz":
        data = gzip.compress(data, compresslevel=1, mtime=0)
    write_atomically(file, lambda out: out.write(data))


def read_manifest(file: Path) -> Manifest:
    """The manifest in `file`. Raises OSError, and DataError when it is damaged."""
    with _damage_reported(file):
        return _parsed(_read_content(file))


def changes_since(file: Path, now: Manifest) -> list[str]:
    """The changes from the manifest in `file` to `now`. Raises as `read_manifest`."""
    with _damage_reported(file):
        content = _read_content(file)
        return [] if content == now.lines else manifest_changes(_parsed(content), now)  # equal bytes need not be parsed


def _read_content(file: Path) -> bytes:
    data = file.read_bytes()
    return gzip.decompress(data) if file.suffix == ".gz" else data


def _parsed(content: bytes) -> Manifest:
    rows = json.loads(b"[%s]" % b",".join(content.splitlines()))
    names = [str(name) for name, _, _ in rows]
    numbers = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 2)
    return Manifest(names, numbers[:, 0].copy(), numbers[:, 1].copy())


@contextmanager
def _damage_reported(file: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"the manifest {shown(str(file))} is damaged ({error}). Start a new run") from error


def manifest_changes(old: Manifest, new: Manifest) -> list[str]:
    """A sentence for each kind of change between two manifests; none when they are the same."""
    if old.fingerprint == new.fingerprint:
        return []
    before = dict(zip(old.names, zip(old.sizes.tolist(), old.mtimes.tolist(), strict=True), strict=True))
    after = dict(zip(new.names, zip(new.sizes.tolist(), new.mtimes.tolist(), strict=True), strict=True))
    both = [name for name in before if name in after]
    sentences = [
        _sentence("added", [name for name in after if name not in before]),
        _sentence("removed", [name for name in before if name not in after]),
        _sentence("changed (in size or time of change)", [name for name in both if before[name] != after[name]]),
    ]
    found = [sentence for sentence in sentences if sentence]
    return found or ["The images are the same, but in another order, or some are listed more or less often."]


def _sentence(what: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"{len(names):,} image{' was' if len(names) == 1 else 's were'} {what}: {first_few(names)}."
