"""Open a run folder for one process at a time, and start a new run in it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moco.files import remove_temporary_files, write_atomically, write_text
from moco.recipe_base import RecipeBase
from moco.recipe_error import RecipeError
from moco.train.existing_folder import State, check_run_folder
from moco.train.keep_checkpoints import free_name
from moco.train.lock_folder import lock_folder
from moco.train.overwrite_run import finish_removal, is_interrupted, remove_run
from moco.train.run_folder import RunFolder


@contextmanager
def open_run(run: RunFolder, recipe: RecipeBase, *, resume: str, overwrite: bool = False) -> Iterator[State]:
    """A context in which the run folder exists and is locked. Yields its state. No file changes before `start_run`.

    If the run is refused before that, the folder is removed, unless it was there before.

    Args:
        resume: "auto" resumes a run with the same recipe; "never" refuses a folder with a run; "must" one without.
        overwrite: replace an existing run.

    Raises:
        RunError: see `check_run_folder`.
    """
    check_before_lock(run, recipe, resume=resume, overwrite=overwrite)
    missing = [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
    has_lock = os.path.lexists(run.path / ".lock")
    run.path.mkdir(parents=True, exist_ok=True)
    with lock_folder(run.path):
        try:
            if is_interrupted(run):
                finish_removal(run)
            yield check_run_folder(run, recipe, resume=resume, overwrite=overwrite)
        finally:
            if not has_lock and not os.path.lexists(run.recipe_file):  # the run did not start
                _remove_empty(run, missing)


def _remove_empty(run: RunFolder, folders: Iterable[Path]) -> None:
    """Remove .lock, and the folders if nothing else is in them."""
    with suppress(OSError):
        (run.path / ".lock").unlink()
        for folder in folders:
            folder.rmdir()


def check_before_lock(run: RunFolder, recipe: RecipeBase, *, resume: str, overwrite: bool) -> None:
    """Call `check_run_folder` without a lock, before anything is written."""
    if not is_interrupted(run):
        check_run_folder(run, recipe, resume=resume, overwrite=overwrite)


def start_run(run: RunFolder, recipe: RecipeBase) -> list[str]:
    """Start an empty run in the folder. Only the files of an earlier run are removed.

    recipe.json marks the folder as a run. An old one is replaced after all other old files are removed, and the new one
    is written before all other new files. So a kill leaves the old run, or a run that has not started.

    Returns:
        The new names of other files, which had the names of a run's files.
    """
    moved = remove_run(run)
    remove_temporary_files(run.path)
    moved += _keep_foreign_recipe(run)
    write_text(run.recipe_file, recipe.to_json())
    run.checkpoints.mkdir(exist_ok=True)
    remove_temporary_files(run.checkpoints)
    run.record_start()
    return moved


def _keep_foreign_recipe(run: RunFolder) -> list[str]:
    """Copy a recipe.json that no run has written, before it is replaced. Returns the name of the copy."""
    if not os.path.lexists(run.recipe_file):
        return []
    content = run.recipe_file.read_bytes()
    with suppress(RecipeError):
        if run.read_recipe().to_json().encode() == content:
            return []
    copy = free_name(run.recipe_file)
    write_atomically(copy, lambda file: file.write(content))
    return [copy.name]
