"""moco compare."""

import json
from typing import Annotated

import typer

from moco.cli import early_checks
from moco.cli.errors import errors
from moco.cli.options import Architecture, Device, Json, Labelled, MaxBad, NoCache, Test, WeightsArgument, Workers


def compare(
    weights: WeightsArgument,
    data: Labelled,
    baselines: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Separated by commas: random, pixels, torchvision/NAME or timm/NAME on this machine, or paths.",
        ),
    ] = "random,pixels",
    test: Test = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Do not use labels: compare by two views of each image.")
    ] = False,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Is an encoder better than baselines? Yes, no, or cannot tell.

    The measures are the accuracies of 20-NN, a linear classifier and few labels, with paired
    bootstrap intervals. Without labels, the features of two views of each image are compared, which
    is only a hint. Nothing is downloaded.
    """
    with errors() as console:
        early_checks.check_weights(weights)
        early_checks.check_device_name(device)
        early_checks.check_sources(data, [test] if test else [])
        names = [name.strip() for name in baselines.split(",") if name.strip()]
        early_checks.check_baselines(names)
        from moco.cli.progress import show_progress
        from moco.text import printable

        with show_progress(console) as progress:
            progress.stage("loading torch")
            from moco.comparison.compare import compare as run

            found = run(
                weights, data[0] if len(data) == 1 else data, test=test, labels=not no_labels,
                architecture=architecture, device=device,
                baselines=names, workers=workers,
                max_bad=max_bad, cached=not no_cache, say=console.say, progress=progress,
            )  # fmt: skip
        print(json.dumps(found.to_dict()) if as_json else printable(str(found)))
