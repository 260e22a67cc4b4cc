"""A disk that can be made to fail, and that tells what was asked of it: in the place of `os` in `moco.files`."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from moco import files

Told = Callable[[str, str, int, bytes], None]  # operation, path (or "old\nnew"), place in the file, bytes


class Watched(io.FileIO):
    """A file whose writes are told beforehand."""

    def __init__(self, descriptor: int, path: str, told: Told):
        super().__init__(descriptor, "w+b")
        self.path, self.told = path, told

    def write(self, content) -> int:
        self.told("write", self.path, self.tell(), bytes(content))
        return super().write(content)


@contextmanager
def disk(told: Told) -> Iterator[None]:
    """While open, `told` hears of all that `moco.files` does before it is done; what it raises comes instead."""
    paths: dict[int, str] = {}

    def open_(path, flags, mode=0o777) -> int:
        if flags & os.O_CREAT:
            told("create", str(path), 0, b"")
        descriptor = os.open(path, flags, mode)
        paths[descriptor] = str(path)
        return descriptor

    def fdopen(descriptor: int, mode: str):
        return io.BufferedRandom(Watched(descriptor, paths[descriptor], told))

    def write(descriptor: int, content: bytes) -> int:
        told("write", paths[descriptor], os.fstat(descriptor).st_size, bytes(content))
        return os.write(descriptor, content)

    def fsync(descriptor: int) -> None:
        told("fsync", paths[descriptor], 0, b"")
        os.fsync(descriptor)

    def replace(old, new) -> None:
        told("rename", f"{old}\n{new}", 0, b"")
        os.replace(old, new)

    unlink = Path.unlink

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        told("unlink", str(path), 0, b"")
        unlink(path, missing_ok)

    shim = SimpleNamespace(**vars(os) | {
        "open": open_, "fdopen": fdopen, "write": write, "fsync": fsync, "replace": replace,
    })  # fmt: skip
    with mock.patch.object(files, "os", shim), mock.patch.object(Path, "unlink", unlinked):
        yield
