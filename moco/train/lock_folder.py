"""Lock a run folder, so that one process at a time works in it, and check that it is still the same folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from moco.files import MODE
from moco.recipe import RecipeError
from moco.text import message_of


class RunError(RecipeError):
    """A run folder that cannot be used."""


_locked: dict[str, os.stat_result] = {}  # the folders that this process has locked


def check_same_folder(path: Path) -> None:
    """Check that a folder is still the one that this process has locked.

    Raises:
        RunError: another folder has its name now. OSError: it was removed.
    """
    before = _locked.get(os.path.abspath(path))
    if before is not None and not os.path.samestat(before, os.stat(path)):
        raise RunError(
            f"{path} was removed or renamed while this run worked in it, and another folder has its name now: the run "
            "ends, and writes nothing there"
        )


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """A context in which the folder is locked: .lock in it, and the folder itself, because .lock may be removed."""
    with ExitStack() as opened:
        file = _lock_file(path / ".lock")
        opened.callback(os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path) from None
        except OSError as error:
            raise RunError(
                f"{path} cannot be locked ({message_of(error)}), so others could write there: name an --out on "
                "another file system"
            ) from None
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, folder)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path) from None
        except OSError:  # a file system that cannot lock folders
            pass
        _locked[os.path.abspath(path)] = os.fstat(folder)
        opened.callback(_locked.pop, os.path.abspath(path), None)
        yield


def _in_use(path: Path) -> RunError:
    return RunError(f"another process is working in {path}: wait for it, or name another --out")


def _lock_file(file: Path) -> int:
    """Open the lock file; read-only if it cannot be written (another user of a group may own it)."""
    flags = getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | flags, MODE)
    except PermissionError:
        if not file.exists():
            raise
        return os.open(file, os.O_RDONLY | flags)
