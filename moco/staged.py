"""Files and folders that are written aside and take their names together, when all of them are whole."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from moco.files import MODE
from moco.recipe_error import RecipeError
from moco.text import shown


def refuse_existing(files: Sequence[Path], *, overwrite: bool) -> None:
    """Raise RecipeError where one of `files` is a folder, or is there and not to be overwritten."""
    for file in files:
        if file.is_dir():
            raise RecipeError(f"expected the name of a file to write, got the folder {shown(str(file))}")
        if os.path.lexists(file) and not overwrite:
            raise RecipeError(f"{shown(str(file))} exists: give --overwrite to replace it, or another name")


def feature_files(out: Path) -> list[Path]:
    """The files that hold the features of images, for the name of the first: .npy has names in a file beside it."""
    return [out, out.with_name(f"{out.stem}.names.txt")] if out.suffix == ".npy" else [out]


@contextmanager
def staged(files: Sequence[Path], *, overwrite: bool) -> Iterator[list[IO[bytes]]]:
    """Open files, to be written in place of `files`, which are replaced at the end, if nothing was raised.

    `files[0]` is taken away first and put in place last: wherever it is, the others are those that belong to it, at
    whatever moment the process is killed. What a killed process has left aside (`.NAME.partial`) is replaced by the
    next one that writes NAME.

    Raises:
        RecipeError: a file is there and not to be overwritten, or another process writes it. OSError: a full disk, ...
    """
    refuse_existing(files, overwrite=overwrite)
    with ExitStack() as opened:
        aside = [opened.enter_context(_aside(file)) for file in files]
        yield aside
        for file in aside:
            file.flush()
            os.fsync(file.fileno())
        _put_in_place([_partial(file) for file in files], files, overwrite=overwrite)


@contextmanager
def staged_paths(files: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """As `staged`, for programs that write to paths by themselves: paths of the same names, in a folder aside."""
    refuse_existing(files, overwrite=overwrite)
    with folder_aside(files[0]) as folder:
        aside = [folder / file.name for file in files]
        yield aside
        _put_in_place(aside, files, overwrite=overwrite)


@contextmanager
def folder_aside(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, ours alone while open; removed at the end unless it was renamed.

    What a killed process has left there (`.NAME.moco-partial`) is removed by the next one that writes NAME.

    Raises:
        RecipeError: another process writes `out`.
    """
    path = out.with_name(f".{out.name}.moco-partial")
    path.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_NOFOLLOW", 0))
    try:
        _lock(descriptor, path)
        for left in path.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        try:
            yield path
        finally:  # still locked: nobody else has one of this name
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    shutil.rmtree(path)
    finally:
        os.close(descriptor)


def _put_in_place(aside: Sequence[Path], files: Sequence[Path], *, overwrite: bool) -> None:
    """Give the files written aside their names: the first file is taken away first and put in place last."""
    refuse_existing(files, overwrite=overwrite)  # one may have come meanwhile
    if len(files) > 1:
        files[0].unlink(missing_ok=True)
    for path, file in reversed(list(zip(aside, files, strict=True))):
        os.replace(path, file)
    folder = os.open(files[0].parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def identities(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    """What tells each file from one that takes its place; None where there is none."""
    there = [os.lstat(file) if os.path.lexists(file) else None for file in files]
    return [None if status is None else (status.st_ino, status.st_mtime_ns) for status in there]


def left_behind(files: Sequence[Path], before: Sequence[tuple[int, int] | None]) -> str:
    """What a stopped `staged` has left of `files`, in words; `before`: their identities when it began."""
    names = [shown(str(file)) for file in files if os.path.lexists(file)]
    if identities(files) != list(before):
        return f"there is {' and '.join(names)}" if names else "the old files were removed, and no new ones written"
    return "nothing was written" + (f", and {' and '.join(names)} left as before" if names else "")


def _partial(file: Path) -> Path:
    return file.with_name(f".{file.name}.partial")


@contextmanager
def _aside(file: Path) -> Iterator[IO[bytes]]:
    """An empty file that is to become `file`, ours alone while open; removed unless it has got that name."""
    path = _partial(file)
    stream = _locked(path)
    try:
        with stream:
            try:
                yield stream
            finally:  # still locked: nobody else has one of this name
                with suppress(OSError):
                    if os.path.samestat(os.fstat(stream.fileno()), os.lstat(path)):
                        path.unlink()
    finally:
        stream.close()


def _locked(path: Path) -> IO[bytes]:
    """The file at `path`, made or emptied, and locked. Raises RecipeError when another process has it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        descriptor = os.open(path, flags, MODE)
        try:
            _lock(descriptor, path)
        except RecipeError:
            os.close(descriptor)
            raise
        if path.exists() and os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            os.ftruncate(descriptor, 0)
            return os.fdopen(descriptor, "w+b")
        os.close(descriptor)  # its owner has just put it in place or removed it


def _lock(descriptor: int, path: Path) -> None:
    """Raises RecipeError when another process has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RecipeError(f"another process is writing {shown(str(path))}: wait for it, or give another name") from None
    except OSError:  # a file system without locks
        pass
