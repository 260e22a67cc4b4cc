"""Removing the run that is in a folder, whole or not at all, and nothing else.

Only files with exactly the names of a run's files go. Each is first renamed beside itself, to `.tmp-old-NAME`; when one
cannot be, all are renamed back. Then a note is written, and they are deleted. What a kill leaves is put in order by the
next start: with the note the deletion is completed, without it the old run is there again.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from moco.files import write_text
from moco.text import message_of
from moco.train.folder_state import BEFORE_THE_FIRST_STEP, LATER
from moco.train.nan_report import FILES, is_nan_folder
from moco.train.run_folder import RunError, RunFolder
from moco.weights import read_checkpoint

OLD = ".tmp-old-"
NOTE = ".tmp-old"  # the old run is given up


def files_of(run: RunFolder) -> list[Path]:
    """The files in the folder that have the names of a run's files, but for recipe.json; links among them as links.

    Raises:
        RunError: one of them is a directory, or lies behind a link: it is not ours.
    """
    return [folder / name for folder, name in _own(run) if _is_file(folder / name)]


def remove_run(run: RunFolder) -> None:
    """Remove the files of the run that is there, all or none. recipe.json stays: it is replaced last.

    Raises:
        RunError: one of them cannot be removed; the run is as it was.
    """
    files = files_of(run)
    for folder in {file.parent for file in files}:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RunError(
                f"the run in {run.path} cannot be replaced: {folder} cannot be written to. Nothing is changed"
            )
    try:
        for file in files:
            os.rename(file, _aside(file))
    except OSError as error:
        restore_run(run)
        raise RunError(f"the run in {run.path} cannot be replaced: {message_of(error)}. It is as it was") from error
    write_text(run.path / NOTE, "")
    _delete(run)


def finish_removal(run: RunFolder) -> None:
    """Put in order what a kill in `remove_run` has left."""
    note = run.path / NOTE
    if note.is_dir() or note.is_symlink() or (note.exists() and note.stat().st_size):
        raise RunError(f"{note} is not what a run writes there: move it away, or name another --out")
    if note.exists():
        _delete(run)
    else:
        restore_run(run)


def restore_run(run: RunFolder) -> None:
    """Rename the files back that were renamed; one whose place was taken stays where it is."""
    for folder, name in _own(run):
        file = folder / name
        if _is_file(_aside(file)) and not os.path.lexists(file):
            os.rename(_aside(file), file)


def _delete(run: RunFolder) -> None:
    for folder, name in _own(run):
        if _is_file(_aside(folder / name)):
            _aside(folder / name).unlink()
    for folder in _nan_folders(run):
        with suppress(OSError):  # something else is in it
            folder.rmdir()
    (run.path / NOTE).unlink(missing_ok=True)


def _aside(file: Path) -> Path:
    return file.with_name(OLD + file.name)


def _own(run: RunFolder) -> Iterator[tuple[Path, str]]:
    """Folder and name of what may be a run's file, under its name or renamed; links are not followed."""
    yield run.path, "finished.json"
    for folder, names in (
        (run.checkpoints, [read_checkpoint.MANIFEST, *_names_of_checkpoints(run.checkpoints)]),
        (run.encoder, ["model.safetensors", "config.json", "README.md"]),
        *((folder, list(FILES)) for folder in _nan_folders(run)),
        (run.path, [name for name in (*BEFORE_THE_FIRST_STEP, *LATER) if "/" not in name]),
    ):
        if folder.is_symlink():
            raise RunError(f"{folder} is a link, and nothing behind it is removed: remove the link, or another --out")
        yield from ((folder, name) for name in names)


def _names_of_checkpoints(folder: Path) -> list[str]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    names = {entry.name.removeprefix(OLD) for entry in folder.iterdir()}
    return sorted(name for name in names if read_checkpoint.step_in(name) is not None)


def _nan_folders(run: RunFolder) -> list[Path]:
    folder = run.path / "nan"
    if folder.is_symlink():
        raise RunError(f"{folder} is a link, and nothing behind it is removed: remove the link, or another --out")
    return sorted(one for one in folder.iterdir() if is_nan_folder(one.name)) if folder.is_dir() else []


def _is_file(path: Path) -> bool:
    """A file, or a link, which is then not followed. Raises RunError for a directory."""
    if path.is_dir() and not path.is_symlink():
        raise RunError(f"{path} is a folder, where a run writes a file: move it away, or name another --out")
    return os.path.lexists(path)
