"""moco plan."""

import json
from typing import Annotated

import typer

from moco.cli import early_checks, options
from moco.cli.errors import errors
from moco.cli.options import Device, Json, Workers


def plan(
    data: options.Images,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="The time that a run may take, such as 10m, 8h or 1h30m.")
    ] = "1h",
    out: Annotated[
        str, typer.Option(metavar="PATH", help="The run folder in the commands that it prints.")
    ] = "runs/new",
    device: Device = "auto",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Measure this machine, and list runs that fit into a time.

    It trains on your images for at most a minute. Each run is printed as a command with its time, memory and
    settings. `moco pretrain --budget TIME` runs the recommended one at once.
    """
    with errors() as console:
        from moco.planning.budget import parse_budget

        seconds = parse_budget(budget)
        early_checks.check_device_name(device)
        early_checks.check_sources(data)
        from moco.train.plan import plan as plan_runs

        found = plan_runs(data, budget=seconds, out=out, device=device, workers=workers, report=console.live)
        console.end_live()
        print(json.dumps(found.to_dict()) if as_json else found)
