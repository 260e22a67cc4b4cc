"""moco ablate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from moco.cli import early_checks
from moco.cli.errors import errors
from moco.cli.options import Device, Json, Workers

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="mechanism, momentum, queue, shufflebn, temperature, head, width, v2, v3-patch, v3-predictor, "
        "v3-position, v3-heads or v3-batch.",
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="demo: the included pictures, a minute per run. cifar, imagenet: your own copy, named by --data.",
    ),
]
AblationData = Annotated[
    list[str] | None, typer.Option(metavar="PATH", help="Images to train on, at the scales cifar and imagenet.")
]
AblationEvalData = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Labelled images: a folder with train/ and test/ (or val/) of class folders."),
]
Seeds = Annotated[
    str, typer.Option(metavar="N,N,...", help="Seeds of the runs. With several, the table has mean and spread.")
]
Out = Annotated[Path, typer.Option(metavar="PATH", help="The folder of all ablations: runs, results, tables, plots.")]


def ablate(
    name: Name,
    scale: Scale = "demo",
    data: AblationData = None,
    eval_data: AblationEvalData = None,
    seeds: Seeds = "0",
    out: Out = Path("runs/ablate"),
    device: Device = "auto",
    workers: Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and their cost, and exit.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: Json = False,
) -> None:
    """Repeat an ablation of the papers, beside the paper's numbers.

    It does not repeat runs that are finished. After an interruption, the same command resumes.
    """
    from moco.ablate.arguments import check_data_of_scale, check_results_replaceable
    from moco.ablate.families import family

    with errors() as console:
        chosen = _numbers(seeds)
        early_checks.check_device_name(device)
        early_checks.check_sources(data or [], [eval_data] if eval_data else [])
        family(name, scale=scale)
        if dry_run:
            from moco.ablate.cost import list_costs

            print(list_costs(name, scale=scale, seeds=len(chosen)))
            return
        check_data_of_scale(scale, data, eval_data)
        check_results_replaceable(out / scale, name)
        from moco.ablate import table
        from moco.ablate.plot import plot
        from moco.ablate.run import ablate as run_ablate
        from moco.files import write_text

        result = run_ablate(
            name, scale=scale, data=data, eval_data=eval_data, seeds=chosen, out=out, device=device, workers=workers,
            reporter=console,
        )  # fmt: skip
        write_text(out / scale / f"{name}.md", table.markdown(result))
        plot(result, out / scale / f"{name}.png")
        shown = table.markdown(result) if markdown else table.text(result)
        print(json.dumps(result.to_dict()) if as_json else shown)


def _numbers(text: str) -> list[int]:
    """`0,1,2` as numbers."""
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--seeds expects whole numbers with commas between them, got '{text}'") from None
