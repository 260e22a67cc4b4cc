"""Find out what --out contains: nothing, a run and its progress, or other files. Nothing is written here.

A folder is a run if its recipe.json is a recipe. A run that has made no step may be replaced without --overwrite, so
each of its files must have the content that a run writes. All other files are the user's.
"""

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

from moco.files import is_special, is_temporary_name
from moco.recipe import Recipe, RecipeError, diff
from moco.recipe_base import RecipeBase
from moco.train.nan_folder import FILES, is_nan_folder
from moco.train.read_log import has_only_records
from moco.train.result_files import check_no_foreign_results, check_results, is_provenance, is_saved_note
from moco.train.run_folder import RunError, RunFolder
from moco.weights import read_checkpoint


class State(Enum):
    """The progress of the run in a folder."""

    EMPTY = "there is no run"
    NOT_STARTED = "a run that failed or was killed before its first step"
    NOT_SAVED = "a run that was killed after its first step and before its first checkpoint"
    SAVED = "a run with checkpoints"
    FINISHED = "a run that has ended"

    @property
    def started(self) -> bool:
        return self not in (State.EMPTY, State.NOT_STARTED)


# What a run appends to or writes into. None may be a link: the run would write elsewhere.
WRITTEN = (
    "checkpoints", "encoder", "model", "nan", "tensorboard", ".lock", "metrics.jsonl", "train.log", "bad_images.csv",
)  # fmt: skip
FOLDERS = ("checkpoints", "encoder", "model", "nan", "tensorboard")
# What a run writes after its first step. A new kind of file belongs here, or `--overwrite` does not remove it.
AFTER_THE_FIRST_STEP = (
    "scores.json", "details.json", "diagnosis.json", "compare.json", "report.html", "report.json", "atlas.html",
    "atlas.parquet", "curves.png", "neighbours.png", "predictions.png", "precision_recall.png", "confusions.png",
    "encoder/model.safetensors", "encoder/config.json", "encoder/README.md", "model/model.safetensors",
    "model/config.json",
)  # fmt: skip


def check_run_folder(run: RunFolder, recipe: RecipeBase, *, resume: str, overwrite: bool) -> State:
    """The state of the folder, if a run of `recipe` may start or resume there.

    Raises:
        RunError: the folder has other files, another recipe, a run that `resume` refuses, or no run to resume.
    """
    state = check_state(run, resume=resume, overwrite=overwrite)
    if overwrite:
        return state
    if state is not State.EMPTY:
        _check_same_recipe(run, recipe, state)
    if state is State.FINISHED:
        check_results(run)
    elif state.started:
        check_no_foreign_results(run)
    return state


def check_state(run: RunFolder, *, resume: str, overwrite: bool) -> State:
    """As `check_run_folder`, for any recipe: only what the folder itself tells. Imports no torch.

    Raises:
        RunError: the folder has other files, a run that `resume` refuses, or no run to resume.
    """
    _check_kinds(run)
    if overwrite and not _is_empty(run):
        _check_recipe_is_there(run)
        return State.NOT_STARTED
    state = state_of(run)
    if resume == "must" and state not in (State.SAVED, State.FINISHED):
        raise RunError(
            f"--resume must expects a run in {run.path} that can be resumed, and there is none ({state.value}): "
            "start it with --resume auto"
        )
    if resume == "never" and state.started:
        raise RunError(f"{run.path} has a run already: name another --out, resume it (--resume auto), or --overwrite")
    return state


def state_of(run: RunFolder) -> State:
    """The progress of the run in the folder. Raises RunError if it has no run, or the run's checkpoints are missing."""
    if _is_empty(run):
        return State.EMPTY
    _check_recipe_is_there(run)
    _read_recipe(run)
    if run.finished:
        return State.FINISHED
    if read_checkpoint.entries(run.checkpoints):
        return State.SAVED
    if steps := max((record.get("step", 0) for record in run.metrics()), default=0):
        _check_never_saved(run, steps)
        return State.NOT_SAVED
    if (first := run.first_saved_step()) is not None:
        raise RunError(_checkpoints_are_missing(run, f"has saved a checkpoint after step {first}"))
    _check_may_be_replaced(run)
    return State.NOT_STARTED


def read_stored_recipe(out: Path) -> Recipe | None:
    """The recipe of the run in `out`; None if there is no run, or it has made no step."""
    run = RunFolder(out)
    if not run.recipe_file.is_file():
        return None
    try:
        started = run.finished or bool(read_checkpoint.entries(run.checkpoints)) or any(_steps(run))
        return run.recipe() if started else None
    except (RecipeError, read_checkpoint.UnreadableError):
        return None  # `check_run_folder` reports it


def _steps(run: RunFolder) -> list[int]:
    return [record.get("step", 0) for record in run.metrics()]


def _is_empty(run: RunFolder) -> bool:
    """Whether the folder has at most a lock file and temporary files of a run."""
    if not run.path.exists():
        return True
    names = [entry.name for entry in run.path.iterdir()]
    return all(name.startswith(".lock") or is_temporary_name(name) for name in names)


def _check_kinds(run: RunFolder) -> None:
    """Raise RunError for a link where a run writes, a file in the place of a folder, or the reverse."""
    path = run.path
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise RunError(
            f"--out expects a folder, and {path} is a {'link' if path.is_symlink() else 'file'}: name another"
        )
    for own in _files_of_a_run(run):
        if is_special(own):
            raise RunError(f"{own} is a pipe, a socket or a device, and not a file: move it, or name another --out")
    for own in (path / name for name in WRITTEN):
        if own.is_symlink():
            raise RunError(f"{own} is a link, and a run does not write through links: remove it, or name another --out")
        if own.exists() and own.is_dir() != (own.name in FOLDERS):
            kinds = ("folder", "file") if own.name in FOLDERS else ("file", "folder")
            raise RunError(f"{own} is expected to be a {kinds[0]}, and is a {kinds[1]}: move it, or name another --out")


def _files_of_a_run(run: RunFolder) -> Iterator[Path]:
    """The files that a run has in this folder, whether they exist or not."""
    names = ("recipe.json", "finished.json", *BEFORE_THE_FIRST_STEP, *AFTER_THE_FIRST_STEP)
    yield from (run.path / name for name in names)
    yield from (one for one in run.checkpoints.glob("step_*.pt") if read_checkpoint.step_in(one.name) is not None)
    for report in (one for one in (run.path / "nan").glob("step_*") if is_nan_folder(one.name)):
        yield from (report, *(report / name for name in FILES))


def _check_recipe_is_there(run: RunFolder) -> None:
    if not run.recipe_file.is_file():
        raise RunError(f"--out expects a new or empty folder or a run, and {run.path} has other files: name another")


def _read_recipe(run: RunFolder) -> RecipeBase:
    try:
        return run.read_recipe()
    except (RecipeError, OSError) as error:
        raise RunError(
            f"{run.recipe_file} is not a recipe of this project, so {run.path} may not be a run: name another --out, "
            f"or --overwrite if it is a run that may be removed. ({error})"
        ) from None


def _check_never_saved(run: RunFolder, steps: int) -> None:
    """Raise RunError unless saved.json says that no checkpoint was written yet."""
    if run.has_never_saved() and run.checkpoints.is_dir():
        return
    raise RunError(_checkpoints_are_missing(run, f"has logged {steps} steps"))


def _checkpoints_are_missing(run: RunFolder, progress: str) -> str:
    return (
        f"the run in {run.path} {progress}, but there is no checkpoint in {run.checkpoints}. Is a disk not mounted? "
        "Restore the checkpoints and run the same command again, or start again: another --out, or --overwrite"
    )


def _check_same_recipe(run: RunFolder, recipe: RecipeBase, state: State) -> None:
    changes = diff(run.read_recipe(), recipe)
    if not changes:
        return
    listed = "\n  ".join(changes)
    if not state.started:
        if (run.path / ".lock").exists():  # a run wrote the recipe; without a step it may be replaced
            return
        raise RunError(
            f"{run.recipe_file} has another recipe, and was not written by a run. Changed:\n  {listed}\nName another "
            "--out, or --overwrite"
        )
    advice = "Give the same options again, name another --out, or --overwrite"
    if state is State.FINISHED:
        advice = (
            f"The run is finished. Its schedule cannot be made longer, because every learning rate would differ. To "
            f"continue from its weights, use --init {run.path} with another --out. To train with these settings from "
            "the start, use another --out, or --overwrite"
        )
    raise RunError(
        f"{run.path} has a run with another recipe, which cannot be resumed with this one. Changed:\n  {listed}\n"
        f"{advice}"
    )


def _check_may_be_replaced(run: RunFolder) -> None:
    """Raise RunError if a run without a step has a file with the name of a run's file, but other content."""
    steps = [one.name for one in (run.path / "nan").glob("step_*") if is_nan_folder(one.name)]
    refused = [f"nan/{step}/{name}" for step in steps for name in FILES]
    for there in (run.path / name for name in ("finished.json", *AFTER_THE_FIRST_STEP, *refused)):
        if os.path.lexists(there):
            raise RunError(
                f"{there} exists, but the run in this folder has made no step, so the run has not written it. It would "
                "be replaced: name another --out, or --overwrite"
            )
    for name, looks_ours in BEFORE_THE_FIRST_STEP.items():
        file = run.path / name
        if os.path.lexists(file) and not _holds(looks_ours, file):
            raise RunError(
                f"{file} does not have the content that a run writes, and would be replaced: name another --out, "
                "move it away, or --overwrite"
            )


def _holds(looks_ours: Callable[[Path], bool], file: Path) -> bool:
    try:
        return file.is_file() and looks_ours(file)
    except (OSError, EOFError, ValueError, RecursionError, TypeError, KeyError):
        return False


def _json(file: Path) -> Any:
    return json.loads(file.read_bytes())


def _is_train_log(file: Path) -> bool:
    line = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 ")
    return all(line.match(one) for one in file.read_bytes().splitlines())


def _is_list_of_bad_images(file: Path) -> bool:
    with file.open("rb") as lines:
        return lines.readline() in (b'"name","reason"\n', b"")


def _is_manifest(file: Path) -> bool:
    with gzip.open(file) as lines:
        first = [json.loads(line) for line in islice(lines, 1)]
    return all(isinstance(name, str) and isinstance(size + mtime, int) for name, size, mtime in first)


BEFORE_THE_FIRST_STEP: dict[str, Callable[[Path], bool]] = {
    "provenance.json": lambda file: is_provenance(_json(file)),
    "init.json": lambda file: {"weights", "read"} <= _json(file).keys(),
    "metrics.jsonl": has_only_records,  # of scores: `state_of` has checked that there is no step
    "train.log": _is_train_log,
    "bad_images.csv": _is_list_of_bad_images,
    "manifest.jsonl.gz": _is_manifest,
    "saved.json": lambda file: is_saved_note(_json(file)),
    "checkpoints/MANIFEST.json": lambda file: _json(file) == [],
}
