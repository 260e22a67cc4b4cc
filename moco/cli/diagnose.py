"""moco diagnose."""

import json
from pathlib import Path
from typing import Annotated

import typer

from moco.cli import early_checks
from moco.cli.errors import errors
from moco.cli.options import Device, Json, Workers


def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="DATA", help="The images of the run: its checkpoints are measured on a sample of them."
        ),
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Say whether a run is healthy, without labels.

    Two verdicts, for classification and for dense tasks, with the numbers behind them. Without --data it reads what was
    measured during training. It writes diagnosis.json into the run.
    """
    with errors() as console:
        early_checks.check_device_name(device)
        early_checks.check_sources(data or [])
        early_checks.check_run(run)
        from moco.train.diagnose_run import diagnose_run

        found, content = diagnose_run(run, data, device=device, workers=workers, reporter=console)
        print(json.dumps(content) if as_json else found)
