"""moco runs ls, compare."""

import json
from pathlib import Path
from typing import Annotated

import typer

from moco.cli.errors import errors
from moco.cli.options import Json


def ls(
    folder: Annotated[Path, typer.Argument(metavar="PATH", help="A folder of runs, or a run.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs with their last logged values."""
    with errors():
        from moco.runs import describe, find_runs, table
        from moco.text import printable

        rows = [describe(run) for run in find_runs(folder)]
        print(json.dumps(rows) if as_json else printable(table(rows)))


def compare(
    a: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    b: Annotated[Path, typer.Argument(metavar="OTHER", help="Another run folder.")],
    as_json: Json = False,
) -> None:
    """Show how the settings of two runs differ, and their last values."""
    with errors():
        from moco.runs import describe, differences, table
        from moco.text import printable
        from moco.train.run_folder import RunFolder

        lines, rows = differences(a, b), [describe(RunFolder(path)) for path in (a, b)]
        if as_json:
            print(json.dumps({"differences": lines, "runs": rows}))
        else:
            print(printable("\n".join([*(lines or ["the same recipe"]), "", table(rows)])))
