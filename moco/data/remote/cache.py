"""Copies of objects on the local disk, up to a number of bytes. Processes, also of other runs, may share the folder.

A copy is a file that begins with a hash of its content: a damaged copy is detected, and its object is read again. Files
are written atomically. The copies that were not used for the longest time are removed first.
"""

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from moco.data.remote.store import SIZE_UNKNOWN, ByteRange
from moco.data.remote.urls import public
from moco.files import temporary_name

DIGEST = 16  # [bytes] of the hash in front of the content
ROUNDS = 50  # the folder is looked through when 1/50 of its size was written: several processes stay below the size
FULL = 0.9  # of the size, to which the folder is reduced
MARK = "objects"  # the folder in the folder that has the copies: nothing else is ever removed


class DiskCache:
    """Copies in `folder`, of `size` bytes together at most (plus 2 % for each process that is writing).

    Objects of which the store names neither an ETag nor a date are not kept: a new version could not be told.
    """

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self._written = size  # [bytes] since the folder was looked through; at first that is due

    def get(self, part: ByteRange) -> bytes | None:
        """The copy of `part`, or None."""
        if not part.stamp:
            return None
        path = self._path(part)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, content = content[:DIGEST], content[DIGEST:]
        if digest != _digest(content) or part.size not in (SIZE_UNKNOWN, len(content)):
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # it was used now
        return content

    def put(self, part: ByteRange, content: bytes) -> None:
        """Store a copy. A disk that is full, or cannot be written, is no error."""
        if not part.stamp or len(content) > self.size // 10:
            return
        path = self._path(part)
        temporary = temporary_name(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:  # not synced: after a power failure, the hash tells
                file.write(_digest(content) + content)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._written = self.size  # full? then older copies go
        self._written += DIGEST + len(content)
        if self._written > self.size // ROUNDS:
            self._written = 0
            with suppress(OSError):
                self._remove_old()

    def _path(self, part: ByteRange) -> Path:
        key = f"{public(part.url)} {part.url} {part.stamp} {part.offset} {part.size}"
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / MARK / name[:2] / name[2:40]

    def _remove_old(self) -> None:
        """Remove the copies that were not used for the longest time, if there are too many. One process at a time."""
        with (self.folder / MARK / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # wait: what others look through now lacks what was just written
            found: list[tuple[int, int, str]] = []  # time of use [ns], bytes, path
            for folder in os.scandir(self.folder / MARK):
                if folder.is_dir(follow_symlinks=False):
                    for entry in os.scandir(folder):
                        with suppress(OSError):
                            status = entry.stat(follow_symlinks=False)
                            found.append((status.st_mtime_ns, status.st_size, entry.path))
            total = sum(size for _, size, _ in found)
            if total <= self.size - self.size // ROUNDS:
                return
            for _, size, path in sorted(found):
                if total <= FULL * self.size:
                    return
                with suppress(OSError):
                    os.unlink(path)
                    total -= size


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
