"""moco report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from moco.cli import early_checks
from moco.cli.errors import errors
from moco.cli.options import Device, Json, Workers


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="A run folder, or several to compare.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The HTML file to write. [default: report.html in RUN]"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="DATA", help="The images of the run, for pictures. [default: those of an earlier report]"
        ),
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Write a report about a run, or several, as one HTML file.

    It has verdicts, scores, curves, pictures, and the command, data and machine of the run. The file needs no network.
    A JSON file with all of its numbers is beside it.
    """
    with errors():
        early_checks.check_device_name(device)
        early_checks.check_page(out)
        for run in runs:
            early_checks.check_run(run)
        early_checks.check_sources(data or [])
        from moco.train.report_run import report_page_path, write_report

        page = report_page_path(runs, out)
        content = write_report(runs, out, data=data or None, device=device, workers=workers)
        print(json.dumps(content) if as_json else page)
