"""Atomic writes: a file is either written completely or unchanged. All files are written through this module."""

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

MODE = 0o666  # minus the umask, so that members of a group can share runs and caches
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/", re.ASCII)  # not C:/
TEMPORARY = re.compile(r"\.tmp-([1-9][0-9]{0,9}-[0-9a-f]{8})([0-9a-f]{8})", re.ASCII)


def temporary_name(path: Path) -> Path:
    """A new name in the folder of `path`: `.tmp-PID-`, 8 random hexadecimal digits, and 8 digits of a checksum."""
    number = f"{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".tmp-{number}{_checksum(number)}")


def is_temporary_name(name: str) -> bool:
    """Whether `temporary_name` has made this name. The checksum tells it from a similar name of the user's."""
    found = TEMPORARY.fullmatch(name)
    return found is not None and found[2] == _checksum(found[1])


def _checksum(number: str) -> str:
    return hashlib.sha256(f"moco {number}".encode()).hexdigest()[:8]


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> str:
    """Write `path` by `write(file)`. If anything fails, `path` is unchanged. Returns the SHA-256 of the content.

    Raises:
        OSError: the disk is full, ...
    """
    temporary = temporary_name(path)
    with name_in_errors(path, temporary):
        return _write_as(temporary, path, write)


@contextmanager
def name_in_errors(path: Path, temporary: Path) -> Iterator[None]:
    """A context in which an OSError about `temporary` names `path`, which the user knows."""
    try:
        yield
    except OSError as error:
        if error.filename in (temporary, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise


def is_url_path(path: str | Path) -> bool:
    """Whether a path is a URL, perhaps one that has lost a slash, as `Path("s3://a/b")` has."""
    return URL.match(str(path)) is not None


def local_only(path: str | Path) -> str:
    """What to say of a URL where a path is expected."""
    scheme = str(path).partition(":")[0].lower()
    return (
        f"expected a path on this machine, got a URL ({scheme}:). Only images (DATA) may be URLs: write to a local "
        "folder, and copy it"
    )


def check_writable(path: Path) -> None:
    """Raise PermissionError if no file can be created at `path`: the nearest folder that exists is not writable."""
    folder = next((one for one in path.absolute().parents if one.exists()), None)
    if folder is not None and folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _write_as(temporary: Path, path: Path, write: Callable[[IO[bytes]], Any]) -> str:
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), MODE)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # if this fails too, `remove_temporary_files` removes it later
            temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            raise error.__context__ from None  # closing torch.save's archive fails again and hides the cause
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))


def append(path: Path, content: bytes) -> None:
    """Append `content` to a file, which is created if need be. If anything fails, the file is unchanged.

    A file with several hard links (as backups make them) is replaced by a new one, so that the backup does not change.

    Raises:
        OSError: the disk is full, the path is a link, ...
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), MODE)
    try:
        status = os.fstat(descriptor)
        size = status.st_size
        if status.st_nlink > 1:
            before = path.read_bytes()
            write_atomically(path, lambda file: file.write(before + content))
            return
        try:
            while content:
                content = content[os.write(descriptor, content) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def remove_temporary_files(folder: Path) -> None:
    """Remove the files in `folder` that a killed process left under names of `temporary_name`."""
    for leftover in folder.glob(".tmp-*"):
        if is_temporary_name(leftover.name) and not leftover.is_dir():
            with suppress(OSError):  # a leftover does no harm
                leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it cannot be read or is not JSON.

    A pipe or a device is not read, because reading one may wait for ever.
    """
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def is_special(path: Path) -> bool:
    """Whether this is a pipe, a socket or a device. Reading one may wait for ever."""
    return path.exists() and not path.is_file() and not path.is_dir()


def refuse_special(path: Path) -> None:
    """Raise OSError for a pipe, a socket or a device."""
    if is_special(path):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device", str(path))


def cache_folder() -> Path:
    """The folder for what can be made again: `momentum-contrast` in XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "momentum-contrast"
