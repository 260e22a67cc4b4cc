"""Write several files or a folder in a staging folder first, and move them into place only when all are complete."""

import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from moco.files import check_writable, is_url_path, local_only, name_in_errors, read_json
from moco.recipe_error import RecipeError
from moco.text import escape

OWNER_MARK = "made-by-moco"  # a file that marks a staging folder as ours
MADE_BY = "a staging folder of momentum-contrast"  # what the mark says, beside host and process
CONTENT = "new"  # the folder in it that is written to


def local_path(path: str | Path) -> Path:
    """A path to write to. Raises RecipeError for a URL."""
    if is_url_path(path):
        raise RecipeError(local_only(path))
    return Path(path)


def refuse_existing(files: Sequence[Path], *, overwrite: bool) -> None:
    """Raise RecipeError if one of `files` is a folder, or exists and `overwrite` is not set.

    Raises PermissionError if its folder is not writable.
    """
    for file in files:
        if file.is_dir():
            raise RecipeError(f"expected the name of a file to write, got the folder {escape(str(file))}")
        if os.path.lexists(file) and not overwrite:
            raise RecipeError(f"{escape(str(file))} exists: give --overwrite to replace it, or another name")
        check_writable(file)


def feature_files(out: Path) -> list[Path]:
    """The files that features are written to: `out`, and for .npy also a text file with the images' names."""
    return [out, out.with_name(f"{out.stem}.names.txt")] if out.suffix == ".npy" else [out]


@contextmanager
def created_folder(folder: Path) -> Iterator[None]:
    """A context in which `folder` exists. If it raises, the folders that it has created are removed, unless used."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


@contextmanager
def open_staged_files(files: Sequence[Path], *, overwrite: bool) -> Iterator[list[IO[bytes]]]:
    """As `stage_paths`, but yields open files."""
    with stage_paths(files, overwrite=overwrite) as aside, ExitStack() as opened:
        yield [opened.enter_context(path.open("x+b")) for path in aside]


@contextmanager
def stage_paths(files: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Yield paths in a staging folder. The files written there replace `files` at the end, unless an error was raised.

    `files[0]` is removed first and put in place last. So even if the process is killed, an existing `files[0]` always
    belongs to the other files beside it.

    Raises:
        RecipeError: a file exists and `overwrite` is not set, or another process is writing it.
        OSError: the disk is full, ...
    """
    refuse_existing(files, overwrite=overwrite)
    with make_staging_folder(files[0]) as folder:
        aside = [folder / file.name for file in files]
        yield aside
        for path in aside:
            _sync(path)
        _put_in_place(aside, files, overwrite=overwrite)


@contextmanager
def make_staging_folder(out: Path) -> Iterator[Path]:
    """Yield an empty, locked folder on the file system of `out`. It is removed at the end unless it was renamed.

    It is inside `.NAME.moco-partial`. If a process is killed, the next one that writes NAME removes what it left.

    Raises:
        RecipeError: another process is writing `out`, or `.NAME.moco-partial` is not ours.
    """
    place = out.with_name(f".{out.name}.moco-partial")
    with name_in_errors(out, place):
        descriptor = _open_locked(place)
    try:
        _check_is_ours(place)
        try:
            mark = {"made_by": MADE_BY, "host": platform.node(), "pid": os.getpid()}
            (place / OWNER_MARK).write_text(json.dumps(mark))
            _remove_folder(place / CONTENT)
            (place / CONTENT).mkdir()
            yield place / CONTENT
        finally:  # still locked: no other process uses the name
            with suppress(OSError):
                _remove_folder(place / CONTENT)
                (place / OWNER_MARK).unlink(missing_ok=True)
                place.rmdir()
    finally:
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Create the folder if need be, lock it, and return its descriptor. Raises RecipeError."""
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
    """Raise RecipeError unless the folder is empty or was left by a killed process of this package."""
    names = set(os.listdir(place))
    if names - {OWNER_MARK, CONTENT}:
        raise _not_ours(place)
    mark = place / OWNER_MARK
    noted = None if mark.is_symlink() else read_json(mark)
    is_ours = isinstance(noted, dict) and noted.get("made_by") == MADE_BY
    was_cut = names == {OWNER_MARK} and mark.is_file() and not mark.is_symlink() and mark.stat().st_size == 0
    if names and not is_ours and not was_cut:  # cut: killed while it wrote the mark, before all else
        raise _not_ours(place)


def _not_ours(path: Path) -> RecipeError:
    return RecipeError(
        f"{escape(str(path))} exists and was not made by this command, which needs that name for its "
        "temporary files. Move it away, or give another name"
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
    """Move the staged files into place. `files[0]` is removed first and put in place last."""
    refuse_existing(files, overwrite=overwrite)  # one may have appeared meanwhile
    if len(files) > 1:
        files[0].unlink(missing_ok=True)
    for path, file in reversed(list(zip(aside, files, strict=True))):
        os.replace(path, file)
    _sync(files[0].parent)


def identities(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    """(inode, time of change) of each file, which differ once it is replaced; None for a missing file."""
    there = [os.lstat(file) if os.path.lexists(file) else None for file in files]
    return [None if status is None else (status.st_ino, status.st_mtime_ns) for status in there]


def describe_leftovers(files: Sequence[Path], before: Sequence[tuple[int, int] | None]) -> str:
    """The state of `files` after an interrupted `open_staged_files`. `before`: their `identities` at its start."""
    names = [escape(str(file)) for file in files if os.path.lexists(file)]
    if identities(files) != list(before):
        return f"there is {' and '.join(names)}" if names else "the old files were removed, and no new ones written"
    return "nothing was written" + (f", and {' and '.join(names)} left as before" if names else "")


def _lock(descriptor: int, path: Path) -> None:
    """Raise RecipeError if another process has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RecipeError(
            f"another process is writing {escape(str(path))}: wait for it, or give another name"
        ) from None
    except OSError:  # a file system without locks
        pass
