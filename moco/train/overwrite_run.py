"""Remove the run in a folder: all of its files or none, and no other files.

Only files that the run has written are removed (`written_by_run.py`). Others with the names of a run's files are
renamed to `NAME.other`, as the new run needs their names. First, a note lists the run's files. Then each is renamed to
`.tmp-old-NAME`; if one cannot be renamed, all are renamed back. Then the note is changed to "deletes", and the files
are deleted. If the process is killed, the next start reads the note, and finishes the deletion or renames the files
back. Other files do not change.
"""

import os
import platform
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from moco.files import read_json, write_json
from moco.text import message_of
from moco.train.existing_folder import AFTER_THE_FIRST_STEP, BEFORE_THE_FIRST_STEP
from moco.train.keep_checkpoints import free_name
from moco.train.nan_folder import FILES, is_nan_folder
from moco.train.run_folder import RunError, RunFolder
from moco.train.written_by_run import is_written_by_run
from moco.weights import read_checkpoint

OLD = ".tmp-old-"
NOTE = ".tmp-old"  # the name of the note
MADE_BY = "the removal of a run by momentum-contrast"


def find_existing_files(run: RunFolder) -> list[Path]:
    """The existing files with names of a run's files, except recipe.json. Links are not followed.

    Raises:
        RunError: one of them is a directory, or its folder is a link.
    """
    return [folder / name for folder, name in _possible_files(run) if _is_file(folder / name)]


def remove_run(run: RunFolder) -> list[str]:
    """Remove the files of the run, all or none. recipe.json stays: it is replaced last.

    Returns:
        The new names of files that have the names of a run's files, and that this run has not written.

    Raises:
        RunError: a file cannot be removed; the run is unchanged.
    """
    existing = find_existing_files(run)
    files = [file for file in existing if is_written_by_run(run, file)]
    foreign = [file for file in existing if file not in files]
    if not existing:
        return []
    for folder in {file.parent for file in existing}:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RunError(f"the run in {run.path} cannot be replaced: {folder} is not writable. Nothing has changed")
    for temporary in (run.path / NOTE, *map(_temporary, files)):
        if os.path.lexists(temporary):
            raise RunError(f"{temporary} has a name that --overwrite needs: move it away. Nothing has changed")
    names, moved = {_name(run, file) for file in files}, dict[Path, Path]()
    _note(run, names, deletes=False)
    try:
        for file in foreign:
            os.rename(file, other := free_name(file))
            moved[file] = other
        for file in files:
            os.rename(file, _temporary(file))
        _note(run, names, deletes=True)
    except OSError as error:
        for file, other in moved.items():
            os.rename(other, file)
        _rename_back(run, names)
        raise RunError(f"the run in {run.path} cannot be replaced: {message_of(error)}. Nothing has changed") from error
    _delete(run, names)
    return [_name(run, other) for other in moved.values()]


def is_interrupted(run: RunFolder) -> bool:
    """Whether a removal of a run was interrupted. recipe.json still exists then, because it is replaced last."""
    return run.recipe_file.is_file() and os.path.lexists(run.path / NOTE)


def finish_removal(run: RunFolder) -> None:
    """Finish or undo an interrupted removal, as its note says. Raises RunError if the note is not from a removal."""
    note = run.path / NOTE
    noted = None if note.is_symlink() else read_json(note)
    if not isinstance(noted, dict) or noted.get("made_by") != MADE_BY or not isinstance(noted.get("files"), list):
        raise RunError(f"{note} was not written by moco: move it away, or name another --out")
    names = {name for name in noted["files"] if isinstance(name, str)}
    if noted.get("deletes") is True:
        _delete(run, names)
    else:
        _rename_back(run, names)


def _note(run: RunFolder, names: Collection[str], *, deletes: bool) -> None:
    """Write the note with the files to remove. `deletes`: all are renamed, and may be deleted."""
    about = {"made_by": MADE_BY, "host": platform.node(), "pid": os.getpid(), "deletes": deletes}
    write_json(run.path / NOTE, about | {"files": sorted(names)})


def _rename_back(run: RunFolder, names: Collection[str]) -> None:
    """Rename the listed files back, except those whose name exists again."""
    for file in _listed(run, names):
        if _is_file(_temporary(file)) and not os.path.lexists(file):
            os.rename(_temporary(file), file)
    (run.path / NOTE).unlink(missing_ok=True)


def _delete(run: RunFolder, names: Collection[str]) -> None:
    for file in _listed(run, names):
        if _is_file(_temporary(file)):
            _temporary(file).unlink()
    for folder in _nan_folders(run):
        with suppress(OSError):  # not empty: it has other files
            folder.rmdir()
    (run.path / NOTE).unlink(missing_ok=True)


def _listed(run: RunFolder, names: Collection[str]) -> list[Path]:
    """The files of the run that the note lists."""
    return [folder / name for folder, name in _possible_files(run) if _name(run, folder / name) in names]


def _name(run: RunFolder, file: Path) -> str:
    return str(file.relative_to(run.path))


def _temporary(file: Path) -> Path:
    return file.with_name(OLD + file.name)


def _possible_files(run: RunFolder) -> Iterator[tuple[Path, str]]:
    """Folder and name of each file that a run may write. Raises RunError if a folder is a link."""
    yield run.path, "finished.json"
    for folder, names in (
        (run.checkpoints, [read_checkpoint.MANIFEST, *_names_of_checkpoints(run.checkpoints)]),
        (run.encoder, ["model.safetensors", "config.json", "README.md"]),
        (run.path / "model", ["model.safetensors", "config.json"]),
        *((folder, list(FILES)) for folder in _nan_folders(run)),
        (run.path, [name for name in (*BEFORE_THE_FIRST_STEP, *AFTER_THE_FIRST_STEP) if "/" not in name]),
    ):
        if folder.is_symlink():
            raise RunError(
                f"{folder} is a link, and a run removes nothing through links: remove it, or name another --out"
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
        raise RunError(f"{folder} is a link, and a run removes nothing through links: remove it, or name another --out")
    return sorted(one for one in folder.iterdir() if is_nan_folder(one.name)) if folder.is_dir() else []


def _is_file(path: Path) -> bool:
    """Whether `path` is a file or a link, which is not followed. Raises RunError for a directory."""
    if path.is_dir() and not path.is_symlink():
        raise RunError(f"{path} is a folder, and a run writes a file of this name: move it away, or name another --out")
    return os.path.lexists(path)
