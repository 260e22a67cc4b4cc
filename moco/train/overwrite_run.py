"""Remove the run in a folder, all of it or nothing, and no other files.

Only files with exactly the names of a run's files are removed. Each is first renamed to `.tmp-old-NAME`; if that fails
for one, all are renamed back. Then a note is written, and the files are deleted. After a kill, the next start finishes
the deletion if the note exists, and renames the files back if not.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from moco.files import write_text
from moco.text import message_of
from moco.train.existing_folder import BEFORE_THE_FIRST_STEP, LATER
from moco.train.nan_report import FILES, is_nan_folder
from moco.train.run_folder import RunError, RunFolder
from moco.weights import read_checkpoint

OLD = ".tmp-old-"
NOTE = ".tmp-old"  # says that the deletion is to be finished


def files_of(run: RunFolder) -> list[Path]:
    """The files with the names of a run's files, except recipe.json. Links are returned as links.

    Raises:
        RunError: one of them is a directory, or lies behind a link.
    """
    return [folder / name for folder, name in _own(run) if _is_file(folder / name)]


def remove_run(run: RunFolder) -> None:
    """Remove the files of the run, all or none. recipe.json stays: it is replaced last.

    Raises:
        RunError: one of them cannot be removed; the run is unchanged.
    """
    files = files_of(run)
    for folder in {file.parent for file in files}:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RunError(
                f"the run in {run.path} cannot be replaced: {folder} cannot be written to. Nothing has changed"
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
    """Finish or undo what a kill in `remove_run` has left."""
    note = run.path / NOTE
    if note.is_dir() or note.is_symlink() or (note.exists() and note.stat().st_size):
        raise RunError(f"{note} is not what a run writes there: move it away, or name another --out")
    if note.exists():
        _delete(run)
    else:
        restore_run(run)


def restore_run(run: RunFolder) -> None:
    """Rename the files back, except one whose name is taken."""
    for folder, name in _own(run):
        file = folder / name
        if _is_file(_aside(file)) and not os.path.lexists(file):
            os.rename(_aside(file), file)


def _delete(run: RunFolder) -> None:
    for folder, name in _own(run):
        if _is_file(_aside(folder / name)):
            _aside(folder / name).unlink()
    for folder in _nan_folders(run):
        with suppress(OSError):  # it contains other files
            folder.rmdir()
    (run.path / NOTE).unlink(missing_ok=True)


def _aside(file: Path) -> Path:
    return file.with_name(OLD + file.name)


def _own(run: RunFolder) -> Iterator[tuple[Path, str]]:
    """Folder and name of each file that a run may have written. Links are not followed."""
    yield run.path, "finished.json"
    for folder, names in (
        (run.checkpoints, [read_checkpoint.MANIFEST, *_names_of_checkpoints(run.checkpoints)]),
        (run.encoder, ["model.safetensors", "config.json", "README.md"]),
        (run.path / "model", ["model.safetensors", "config.json"]),
        *((folder, list(FILES)) for folder in _nan_folders(run)),
        (run.path, [name for name in (*BEFORE_THE_FIRST_STEP, *LATER) if "/" not in name]),
    ):
        if folder.is_symlink():
            raise RunError(
                f"{folder} is a link, and nothing behind it is removed: remove the link, or name another --out"
            )
        yield from ((folder, name) for name in names)


def _names_of_checkpoints(folder: Path) -> list[str]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    names = {entry.name.removeprefix(OLD) for entry in folder.iterdir()}
    return sorted(name for name in names if read_checkpoint.step_in(name) is not None)


def _nan_folders(run: RunFolder) -> list[Path]:
    folder = run.path / "nan"
    if folder.is_symlink():
        raise RunError(f"{folder} is a link, and nothing behind it is removed: remove the link, or name another --out")
    return sorted(one for one in folder.iterdir() if is_nan_folder(one.name)) if folder.is_dir() else []


def _is_file(path: Path) -> bool:
    """Whether `path` is a file or a link (not followed). Raises RunError for a directory."""
    if path.is_dir() and not path.is_symlink():
        raise RunError(f"{path} is a folder, where a run writes a file: move it away, or name another --out")
    return os.path.lexists(path)
