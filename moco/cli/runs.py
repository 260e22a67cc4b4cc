"""moco runs ls, show, compare."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from moco.cli.errors import errors
from moco.cli.options import Json
from moco.recipe_error import RecipeError


def ls(
    folder: Annotated[Path, typer.Argument(metavar="PATH", help="A folder of runs, or a run.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs with their last logged values."""
    with errors():
        from moco.runs import find_runs, format_runs_table, read_last_values
        from moco.text import printable

        rows = [read_last_values(run) for run in find_runs(folder)]
        print(json.dumps(rows) if as_json else printable(format_runs_table(rows)))


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    as_json: Json = False,
) -> None:
    """Show a run: its state, changed settings, last values and curves."""
    with errors():
        from moco.curves_as_text import draw_text_curves
        from moco.runs import (
            find_run,
            format_runs_table,
            list_changed_settings,
            read_last_values,
            verdict_of_comparison,
        )
        from moco.text import printable

        folder = find_run(run)
        row, changes, records = read_last_values(folder), list_changed_settings(folder), folder.metrics()
        verdict = verdict_of_comparison(folder)
        if as_json:
            print(json.dumps(row | {"changed_settings": changes, "is_it_worth_it": verdict, "records": records}))
            return
        settings = [f"settings other than those of {row['recipe']}:", *changes, ""] if changes else []
        worth = [f"is it worth it? {verdict}", ""] if verdict else []
        curves = draw_text_curves([(run.name, records)], encoding=sys.stdout.encoding)
        print(printable("\n".join([format_runs_table([row]), "", *worth, *settings, *curves]).rstrip()))


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two or more run folders.")],
    as_json: Json = False,
) -> None:
    """Compare runs: settings, last values and curves."""
    with errors():
        if len(runs) < 2:
            raise RecipeError(f"expected two or more runs, got {runs[0]} only. `moco runs show {runs[0]}` shows one")
        from moco.curves_as_text import draw_text_curves
        from moco.runs import describe_differences, find_run, format_runs_table, read_last_values
        from moco.text import printable

        first, *others = folders = [find_run(run) for run in runs]
        changes = {str(other.path): describe_differences(first, other) for other in others}
        rows = [read_last_values(run) for run in folders]
        if as_json:
            found = changes if len(others) > 1 else changes[str(others[0].path)]
            print(json.dumps({"differences": found, "runs": rows}))
            return
        lines: list[str] = []
        for other, found in changes.items():
            lines += [f"{other} has other settings than {first.path}:" if found else f"{other} has the same settings"]
            lines += [f"  {line}" for line in found]
        curves = draw_text_curves([(str(run.path), run.metrics()) for run in folders], encoding=sys.stdout.encoding)
        print(printable("\n".join([*lines, "", format_runs_table(rows), "", *curves]).rstrip()))
