"""List the runs in a folder, show one, and compare several."""

from pathlib import Path
from typing import Any

from moco.files import read_json
from moco.recipe import RecipeError, diff
from moco.recipes import RECIPES
from moco.train.run_folder import RunError, RunFolder, check_is_run
from moco.weights.own_files import find_foreign
from moco.weights.read_checkpoint import UnreadableError, step_in

VALUES = ("step", "epoch", "loss", "pretext_top1", "knn")
COLUMNS = ("run", "recipe", "state", "step", "loss", "contrastive accuracy", "kNN")


def read_last_values(run: RunFolder) -> dict[str, Any]:
    """The last logged values of a run."""
    last: dict[str, Any] = {}
    for record in run.metrics():
        last |= {name: value for name, value in record.items() if isinstance(value, int | float)}
    try:
        recipe = run.recipe().name
    except RecipeError as error:
        return {"run": str(run.path), "recipe": "", "state": f"unreadable: {error}"} | dict.fromkeys(VALUES)
    values = {name: last.get(name) for name in VALUES}
    state, saved = _state(run, last.get("step", 0))
    if saved is not None:  # a run stopped before its first record has made steps too
        values["step"] = max(saved, values["step"] or 0)
    return {"run": str(run.path), "recipe": recipe, "state": state} | values


def _state(run: RunFolder, step: int) -> tuple[str, int | None]:
    """The state of a run that has logged up to `step`, and the step of its checkpoint."""
    from moco.train import checkpoint  # imports torch; a folder without runs is refused without it

    if run.finished:
        return "finished", None
    try:
        saved = checkpoint.newest_intact(run.checkpoints, accepts=lambda file: find_foreign(run.path, file))
    except UnreadableError:
        return "checkpoints cannot be read", None
    except checkpoint.CheckpointError:
        return "checkpoints damaged", None
    if saved is not None:
        return "can be resumed", step_in(saved.name)
    return ("no checkpoint" if step else "no step yet"), None


def find_runs(folder: Path) -> list[RunFolder]:
    """`folder` if it is a run, else the runs in it, sorted by name. Raises RunError if there is none."""
    runs = [RunFolder(path) for path in [folder, *sorted(folder.glob("*"))] if (path / "recipe.json").is_file()]
    if not runs:
        raise RunError(f"no runs in {folder}: expected folders with a recipe.json, as `moco pretrain --out` makes them")
    return runs


def format_runs_table(rows: list[dict[str, Any]]) -> str:
    """The runs as an aligned table of text. Why a run is unreadable is in a line below it."""
    cells = [COLUMNS] + [
        (
            row["run"], row["recipe"], row["state"].partition(":")[0], _text(row["step"], "d"),
            _text(row["loss"], ".3f"), _text(row["pretext_top1"], ".1%"),
            "" if row["knn"] is None else f"{row['knn']:.1f} %",
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    reasons = [row["state"] for row in rows if ":" in row["state"]]
    return "\n".join([*lines, *reasons])


def find_run(path: Path) -> RunFolder:
    """The run in a folder. Raises RunError if there is none."""
    check_is_run(path)
    return RunFolder(path)


def describe_differences(a: RunFolder, b: RunFolder) -> list[str]:
    """One line for each setting that differs between two runs. Raises RecipeError for a recipe that cannot be read."""
    return diff(a.recipe(), b.recipe())


def list_changed_settings(run: RunFolder) -> list[str]:
    """One line for each setting that differs from those of the recipe that the run is named after."""
    recipe = run.recipe()
    return diff(RECIPES[recipe.name](), recipe) if recipe.name in RECIPES else []


def verdict_of_comparison(run: RunFolder) -> str:
    """The sentence of the comparison with baselines at the end of the run; empty if there was none."""
    content = read_json(run.path / "compare.json")
    verdict = content.get("verdict") if isinstance(content, dict) else None
    sentence = verdict.get("sentence") if isinstance(verdict, dict) else None
    return sentence if isinstance(sentence, str) else ""


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
