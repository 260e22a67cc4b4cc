"""Files and folders that are written aside and take their names together, when all of them are whole."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from moco.recipe_error import RecipeError
from moco.text import shown

MARK, NEW = "made-by-moco", "new"  # in the folder aside: an empty file that says whose it is, and what is written


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
    """As `staged_paths`, with open files in place of paths."""
    with staged_paths(files, overwrite=overwrite) as aside, ExitStack() as opened:
        yield [opened.enter_context(path.open("x+b")) for path in aside]


@contextmanager
def staged_paths(files: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Paths of the same names in a folder aside; the files written there replace `files`, if nothing was raised.

    `files[0]` is removed first and put in place last: whenever the process is killed, if it is there, the others beside
    it belong to it.

    Raises:
        RecipeError: a file is there and not to be overwritten, or another process writes it. OSError: a full disk, ...
    """
    refuse_existing(files, overwrite=overwrite)
    with folder_aside(files[0]) as folder:
        aside = [folder / file.name for file in files]
        yield aside
        for path in aside:
            _sync(path)
        _put_in_place(aside, files, overwrite=overwrite)


@contextmanager
def folder_aside(out: Path) -> Iterator[Path]:
    """An empty folder on the file system of `out`, ours alone while open; removed at the end unless it was renamed.

    It lies in `.NAME.moco-partial`. What a killed process has left there is removed by the next one that writes NAME.

    Raises:
        RecipeError: another process writes `out`, or something else has that name.
    """
    place = out.with_name(f".{out.name}.moco-partial")
    descriptor = _locked_folder(place)
    try:
        _check_is_ours(place)
        (place / MARK).touch()
        _remove_folder(place / NEW)
        (place / NEW).mkdir()
        try:
            yield place / NEW
        finally:  # still locked: no other process uses the name
            with suppress(OSError):
                _remove_folder(place / NEW)
                (place / MARK).unlink()
                place.rmdir()
    finally:
        os.close(descriptor)


def _locked_folder(path: Path) -> int:
    """The descriptor of the folder, which is made if need be, and locked. Raises RecipeError."""
    while True:
        try:
            path.mkdir(exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_NOFOLLOW", 0))
        except (FileExistsError, NotADirectoryError):
            raise _not_ours(path) from None
        except OSError as error:
            if path.is_symlink():
                raise _not_ours(path) from None
            raise error
        try:
            _lock(descriptor, path)
        except RecipeError:
            os.close(descriptor)
            raise
        if path.exists() and os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return descriptor
        os.close(descriptor)  # another process has just removed it


def _check_is_ours(place: Path) -> None:
    """Raises RecipeError unless the folder is empty, or one that a killed process of ours has left."""
    names = set(os.listdir(place))
    if names and (MARK not in names or names - {MARK, NEW}):
        raise _not_ours(place)


def _not_ours(path: Path) -> RecipeError:
    return RecipeError(
        f"{shown(str(path))} is in the way: this command writes there first, and it holds something else. Move it "
        "away, or give another name"
    )


def _remove_folder(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(aside: Sequence[Path], files: Sequence[Path], *, overwrite: bool) -> None:
    """Give the files written aside their names: the first file is taken away first and put in place last."""
    refuse_existing(files, overwrite=overwrite)  # one may have come meanwhile
    if len(files) > 1:
        files[0].unlink(missing_ok=True)
    for path, file in reversed(list(zip(aside, files, strict=True))):
        os.replace(path, file)
    _sync(files[0].parent)


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


def _lock(descriptor: int, path: Path) -> None:
    """Raises RecipeError when another process has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RecipeError(f"another process is writing {shown(str(path))}: wait for it, or give another name") from None
    except OSError:  # a file system without locks
        pass
