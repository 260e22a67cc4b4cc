"""Record the disk operations of `moco.files`, or make them fail, by a stand-in for `os` there."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from moco import files

OnOperation = Callable[[str, str, int, bytes], None]  # operation, path (or "old\nnew"), place in the file, bytes


class Watched(io.FileIO):
    """A file that reports each write before it is done."""

    def __init__(self, descriptor: int, path: str, on_operation: OnOperation):
        super().__init__(descriptor, "w+b")
        self.path, self.on_operation = path, on_operation

    def write(self, content) -> int:
        self.on_operation("write", self.path, self.tell(), bytes(content))
        return super().write(content)


@contextmanager
def disk(on_operation: OnOperation) -> Iterator[None]:
    """While open, call `on_operation` before each operation of `moco.files`. An error prevents the operation."""
    paths: dict[int, str] = {}

    def open_(path, flags, mode=0o777) -> int:
        if flags & os.O_CREAT:
            on_operation("create", str(path), 0, b"")
        descriptor = os.open(path, flags, mode)
        paths[descriptor] = str(path)
        return descriptor

    def fdopen(descriptor: int, mode: str):
        return io.BufferedRandom(Watched(descriptor, paths[descriptor], on_operation))

    def write(descriptor: int, content: bytes) -> int:
        on_operation("write", paths[descriptor], os.fstat(descriptor).st_size, bytes(content))
        return os.write(descriptor, content)

    def fsync(descriptor: int) -> None:
        on_operation("fsync", paths[descriptor], 0, b"")
        os.fsync(descriptor)

    def replace(old, new) -> None:
        on_operation("rename", f"{old}\n{new}", 0, b"")
        os.replace(old, new)

    unlink = Path.unlink

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        on_operation("unlink", str(path), 0, b"")
        unlink(path, missing_ok)

    shim = SimpleNamespace(**vars(os) | {
        "open": open_, "fdopen": fdopen, "write": write, "fsync": fsync, "replace": replace,
    })  # fmt: skip
    with mock.patch.object(files, "os", shim), mock.patch.object(Path, "unlink", unlinked):
        yield
