"""A run folder is opened by one process at a time, and a new run is started in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moco.files import sweep, write_text
from moco.recipe import Recipe
from moco.train.folder_state import State, check_out
from moco.train.replace import NOTE, OLD, finish_removal, remove_run
from moco.train.run_folder import RunFolder, locked


@contextmanager
def open_run(path: Path, recipe: Recipe, *, resume: str, overwrite: bool = False) -> Iterator[State]:
    """The run folder, made if it is not there, is ours alone while open. Gives what is in it.

    A new run is started in it by `start_run`; nothing of what is there is changed before.

    Args:
        resume: "auto" continues a run of the same recipe that is there; "never" wants a new folder; "must" an old one.
        overwrite: a run that is there is to be replaced.

    Raises:
        RunError: see `check_out`.
    """
    run = RunFolder(path)
    check_before(run, recipe, resume=resume, overwrite=overwrite)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if is_interrupted(run):
            finish_removal(run)
        yield check_out(run, recipe, resume=resume, overwrite=overwrite)


def check_before(run: RunFolder, recipe: Recipe, *, resume: str, overwrite: bool) -> None:
    """`check_out` without the lock, before anything is made."""
    if not is_interrupted(run):
        check_out(run, recipe, resume=resume, overwrite=overwrite)


def start_run(run: RunFolder, recipe: Recipe) -> None:
    """Make an empty run of the folder; files of a run that was there are removed, and nothing else.

    recipe.json says that a folder is a run: it is there first, and it is replaced last, so a kill leaves a run behind
    that has not started, or the old one.
    """
    remove_run(run)
    sweep(run.path)
    write_text(run.recipe_file, recipe.to_json())
    run.checkpoints.mkdir(exist_ok=True)
    sweep(run.checkpoints)
    run.note_saved(None)


def is_interrupted(run: RunFolder) -> bool:
    """A kill has come while the run that was there was removed. Its recipe.json is there then: it is removed last."""
    if not run.recipe_file.is_file():
        return False
    folders = [run.path, run.checkpoints, run.encoder]
    names = [entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    return NOTE in names or any(name.startswith(OLD) for name in names)
