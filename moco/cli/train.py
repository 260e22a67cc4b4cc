"""moco pretrain, moco demo."""

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from moco.cli import checks
from moco.cli.errors import errors
from moco.cli.options import Device, Json, MaxBad, Resume, Seed, Workers
from moco.cli.streams import complain
from moco.startup import no_garbage_collection

WAIT = 0.15  # [s] for the search of DATA to fail, before torch is imported


def pretrain(
    data: Annotated[list[str], typer.Argument(help="Folders of images (flat or nested), or list files.")],
    out: Annotated[Path, typer.Option(help="The run folder to make, or to continue.")],
    recipe: Annotated[
        str, typer.Option(help="A recipe's name, a recipe.json, or auto: MoCo v2 fitted to the images.")
    ] = "auto",
    model: Annotated[
        str | None, typer.Option(help="resnet50, torchvision/NAME, timm/NAME, ... [default: the recipe's]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the images. [default: the recipe's]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images of a step, on all devices together. [default: the recipe's]")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: optim.epochs=20. Repeatable.")
    ] = None,
    seed: Seed = None,
    init: Annotated[
        str | None, typer.Option(help="Weights to go on from: a run folder, a file, torchvision/NAME, fair:NAME, ...")
    ] = None,
    eval_data: Annotated[str | None, typer.Option(help="Labelled images for a kNN score during training.")] = None,
    eval_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between scores. [default: a twentieth of the run]")
    ] = None,
    resume: Annotated[
        Resume, typer.Option(help="auto: continue a run that is there. never: refuse it. must: demand it.")
    ] = Resume.auto,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the run that is in --out first.")] = False,
    accept_data_change: Annotated[
        bool, typer.Option("--accept-data-change", help="Continue with other images than before.")
    ] = False,
    device: Device = "auto",
    devices: Annotated[
        str | None, typer.Option(help="Work on so many GPUs, or processes of the CPU, at once; auto: on all GPUs.")
    ] = None,
    workers: Workers = None,
    processes: Annotated[
        bool, typer.Option("--processes", help="Workers are processes, for many cores beside a fast GPU.")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16 (autocast). [default: the recipe's]")
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the encoders.")] = False,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints. [default: a minute]")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Checkpoints that stay: the newest.")] = 3,
    keep_every: Annotated[
        int | None, typer.Option(min=1, help="Besides them, keep one every so many steps. [default: none]")
    ] = None,
    on_nan: Annotated[
        str,
        typer.Option(help="A step that is not finite changes nothing. stop: end the run; skip:N: leave out up to N."),
    ] = "stop",
    max_bad: MaxBad = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Minutes without progress in one step before the run ends itself. 0: forever.")
    ] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Pre-train an encoder on unlabelled images.

    Stopped by a signal, it saves and exits with 75; the same command continues, bit for bit.
    """
    from moco.data.sources.background_scan import BackgroundScan
    from moco.recipes import parse_settings
    from moco.train.slurm import stop_at_once_on_signals

    stop_at_once_on_signals()
    with errors() as console:
        sources = BackgroundScan(data) if devices is None else data  # otherwise the ranks look
        changes = parse_settings(settings or [])
        changes |= {"compute.precision": precision} if precision is not None else {}
        changes |= {"compute.compile": True} if compile_ else {}
        asked = {"encoder.name": model, "optim.epochs": epochs, "optim.batch_size": batch_size, "seed": seed}
        checks.check_recipe(recipe, changes | {name: value for name, value in asked.items() if value is not None})
        checks.check_device(device)
        checks.check_sources([*data, *([eval_data] if eval_data else [])])
        if init is not None:
            checks.check_weights(init)
        if isinstance(sources, BackgroundScan):
            sources.check(WAIT)
        with no_garbage_collection():
            from moco.distributed import on_main
            from moco.train.after_step import summary
            from moco.train.pretrain import pretrain as run_pretrain
            from moco.train.rank_sync import ranks_for
            from moco.train.run_folder import RunFolder

        if (ranks := ranks_for(devices, device)) > 1:
            raise typer.Exit(_launch(ranks))
        run = run_pretrain(
            sources, out, recipe=recipe, model=model, epochs=epochs, batch_size=batch_size, settings=changes,
            seed=seed, init=init,
            eval_data=eval_data, eval_every=eval_every, resume=resume.value, overwrite=overwrite,
            accept_data_change=accept_data_change, device=device, workers=workers, processes=processes,
            save_every=save_every, keep=keep, keep_every=keep_every, on_nan=on_nan, max_bad=max_bad, patience=patience,
            dry_run=dry_run, reporter=console,
        )  # fmt: skip
        if as_json and on_main():
            facts = {"run": str(run.path), "recipe": json.loads(run.recipe.to_json())}
            print(json.dumps(facts | summary(RunFolder(run.path))))


def _launch(ranks: int) -> int:
    """Run this very command on so many ranks. Gives the exit code."""
    from moco.cli import main
    from moco.launch import launch

    code = launch(main, ranks)
    if code < 0:  # as a shell counts it
        name = signal.Signals(-code).name
        complain(f"moco: a rank was ended by {name}: run the same command again to go on")
        return 128 - code
    return code


def demo(
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="One epoch, only to see that everything works.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of all randomness.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the run that is in --out first.")] = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Try it: pre-train on 12,000 pictures that come along, evaluate.

    It takes some minutes on two cores.
    """
    with errors() as console:
        with no_garbage_collection():
            from moco.demo import demo as run_demo

        table = run_demo(out, quick=quick, seed=seed, overwrite=overwrite, workers=workers, reporter=console)
        print(json.dumps(table.to_dict()) if as_json else table)
