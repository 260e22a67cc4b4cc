"""List the files in a tar file with their places, without extracting any. Damaged parts are skipped and listed."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moco.data.sources.images import DataError
from moco.text import escape

TAR_BLOCK = tarfile.BLOCKSIZE
LOOKED_AT = 2**16  # [bytes] of a gap that are read, to tell zeros from damage
CHUNK = 2**20  # [bytes] searched for a header at a time
MAGIC_AT, MAGIC = 257, np.frombuffer(b"ustar", dtype=np.uint8)  # in a header of POSIX or GNU tar
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}


class Member(NamedTuple):
    """A regular file in a tar file."""

    name: str
    offset: int  # [bytes] of its content in the tar file
    size: int  # [bytes]
    mtime: int  # [s]


@dataclass
class Scan:
    """What is in a tar file."""

    members: list[Member] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)  # a sentence for each part that cannot be read


def scan_tar(path: Path) -> Scan:
    """The regular files in `path`, in their order. Links, devices and sparse files are left out.

    After a damaged header the next intact one is looked for, so damage costs the files that it touches and no others.

    Raises:
        DataError: not a tar file, or compressed, so that its files cannot be read by their place.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:  # a buffer does not notice lseek
        return scan_file(file, str(path))


def scan_file(file: io.RawIOBase, path: str, visit: Callable[[Member], None] = lambda _: None) -> Scan:
    """As `scan_tar`, of an open file that can seek.

    Args:
        path: for messages.
        visit: called with each member when it is found, and may read there.
    """
    start, length = file.read(TAR_BLOCK), file.seek(0, 2)
    for magic, name in COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(
                f"{escape(path)} is compressed with {name}, so the images in it cannot be read one by one: "
                "decompress it first (images are compressed already)"
            )
    scan, end, truncated = Scan(), 0, False
    for info in _intact(file, length):
        if info.offset > end:
            _note_gap(scan, file, end, info.offset)
        end = _next_header(info)
        if info.isreg() and not info.issparse():
            if info.offset_data + info.size > length:
                scan.damage.append(f"{escape(info.name)}: the archive ends within it")
                truncated = True
                break
            scan.members.append(Member(info.name, info.offset_data, info.size, int(info.mtime)))
            visit(scan.members[-1])
    if end < length and not truncated:
        _note_gap(scan, file, end, length)
    if not scan.members:
        raise DataError(f"{escape(path)} has no files that can be read: expected a tar file with images")
    return scan


def _intact(file: io.RawIOBase, length: int) -> Iterator[tarfile.TarInfo]:
    """The members with intact headers. After damage, or zeros between joined archives, the next one is looked for."""
    start: int | None = 0
    while start is not None:
        file.seek(start)
        end = start
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # it would keep all of them
                    end = _next_header(info)
                    yield info
        except (tarfile.TarError, ValueError, OverflowError, EOFError):
            pass  # what follows is looked at below, and listed as damaged
        start = _find_header(file, max(end, start + TAR_BLOCK), length)


def _find_header(file: io.RawIOBase, start: int, length: int) -> int | None:
    """[bytes] The offset of the next block from `start` on that looks like a header; None: there is none.

    Holes of a sparse file are passed over without reading them.
    """
    place = -(-start // TAR_BLOCK) * TAR_BLOCK
    while place < length:
        try:
            place = max(place, os.lseek(file.fileno(), place, os.SEEK_DATA) // TAR_BLOCK * TAR_BLOCK)
        except io.UnsupportedOperation:
            pass  # a file in a store has no holes
        except OSError:
            return None  # zeros up to the end
        file.seek(place)
        blocks = np.frombuffer(file.read(CHUNK), dtype=np.uint8)
        blocks = blocks[: len(blocks) // TAR_BLOCK * TAR_BLOCK].reshape(-1, TAR_BLOCK)
        if not len(blocks):
            return None
        found = np.flatnonzero((blocks[:, MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC).all(axis=1))
        if len(found):
            return place + TAR_BLOCK * int(found[0])
        place += CHUNK
    return None


def _next_header(info: tarfile.TarInfo) -> int:
    """[bytes] The offset of the header after this member."""
    content = info.size if info.isreg() else 0
    return info.offset_data + -(-content // TAR_BLOCK) * TAR_BLOCK


def _note_gap(scan: Scan, file: io.RawIOBase, start: int, end: int) -> None:
    """List the part from `start` to `end`, unless it begins with zeros, as between tar files that were joined."""
    file.seek(start)
    if any(file.read(min(end - start, LOOKED_AT))):
        scan.damage.append(f"{end - start:,} bytes from {start:,} on are damaged")
