"""Atomic writes: a file is whole, or as it was before. Everything is written through here."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

MODE = 0o666  # less the umask: what a group shares, its members can go on with
TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-z]+", re.ASCII)  # how `write_atomically` names a file under way


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> str:
    """Make `path` by `write(file)`: afterwards it is whole, or as it was before. Returns its SHA-256.

    Raises:
        OSError: the disk is full, ...
    """
    aside = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), MODE)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(aside, path)
    except BaseException as error:
        with suppress(OSError):  # of a disk that fails at this too; swept later
            aside.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            raise error.__context__ from None  # torch.save fails once more when it is closed, and hides why
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
    """Add `content` to a file, which is made when it is not there: all of it, or nothing.

    A file that has other names too (hard links, as backups make them) is replaced by one of its own: they keep theirs.

    Raises:
        OSError: the disk is full, the path is a link, ...; the file is then as it was.
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


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left. Other names, and what is no file, are not ours and stay."""
    for leftover in folder.glob(".tmp-*"):
        if TEMPORARY.fullmatch(leftover.name) and not leftover.is_dir():
            with suppress(OSError):  # it is in nobody's way
                leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def read_json(path: Path) -> Any:
    """What the file holds; None where it cannot be read, or is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
