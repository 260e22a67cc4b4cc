"""moco pretrain, moco demo."""

import json
import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from moco.cli import early_checks, options
from moco.cli.errors import errors
from moco.cli.options import Device, Json, MaxBad, OverwriteRun, Resume, Workers
from moco.cli.streams import complain
from moco.startup import no_garbage_collection
from moco.train.options import RunKeywords, RunOptions, count_of_devices
from moco.train.reporters import Reporter
from moco.train.trackers import check_trackers

if TYPE_CHECKING:
    from moco.train.pretrain import Run

WAIT = 0.15  # [s] for the search of DATA to fail, before torch is imported


def pretrain(
    data: options.Images, out: options.OutOption, recipe: options.RecipeName = "auto",
    model: options.ModelOption = None, epochs: options.EpochsOption = None, budget: options.Budget = None,
    batch_size: options.BatchSize = None, views: options.Views = None, bands: options.Bands = False,
    settings: options.Settings = None, seed: options.Seed = None, init: options.Init = None,
    eval_data: options.EvalDataOption = None, eval_every: options.EvalEvery = None,
    resume: options.ResumeMode = Resume.auto, overwrite: OverwriteRun = False,
    accept_data_change: options.AcceptDataChange = False,
    device: Device = "auto", devices: options.Devices = None, workers: Workers = None,
    processes: options.Processes = False, precision: options.Precision = None, compile_: options.Compile = False,
    save_every: options.SaveEvery = None, wait_for_saves: options.WaitForSaves = False, keep: options.Keep = 3,
    keep_every: options.KeepEvery = None,
    on_nan: options.OnNan = "stop", on_collapse: options.OnCollapse = options.Collapse.warn,
    diagnose_every: options.DiagnoseEvery = None, max_bad: MaxBad = None, cache: options.CacheFolder = None,
    cache_size: options.CacheSize = None, patience: options.Patience = 30, no_compare: options.NoCompare = False,
    log: options.Log = None, no_report: options.NoReport = False, dry_run: options.DryRun = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Pre-train an encoder on unlabelled images.

    On Ctrl-C, SIGTERM or SIGUSR1 it saves a checkpoint and exits with code 75. The same command
    then resumes the run, bit for bit.
    """
    own = {"optim.epochs": epochs, "optim.batch_size": batch_size, "seed": seed, "compute.precision": precision}
    own |= {"compute.compile": True} if compile_ else {}
    _pretrain(
        data, out, recipe=recipe, model=model, views=views, bands=bands, settings=settings or [], own=own, init=init,
        budget=budget, devices=devices, as_json=as_json, resume=resume.value, overwrite=overwrite,
        accept_data_change=accept_data_change, device=device, workers=workers, processes=processes,
        eval_data=eval_data, eval_every=eval_every, save_every=save_every, wait_for_saves=wait_for_saves, keep=keep,
        keep_every=keep_every, on_nan=on_nan, on_collapse=on_collapse.value, diagnose_every=diagnose_every,
        max_bad=max_bad, patience=patience, log=log or (), report=not no_report, compare=not no_compare,
        dry_run=dry_run,
    )  # fmt: skip


def _pretrain(
    data: list[str], out: Path, *, recipe: str, model: str | None, views: str | None, bands: bool, settings: list[str],
    own: dict[str, Any], init: str | None, budget: str | None, devices: str | None, as_json: bool,
    **chosen: Unpack[RunKeywords],
) -> None:  # fmt: skip
    """Check what needs no torch, then import it and run: in this process, or in one process for each device.

    Args:
        views: a kind of views; --set changes it.
        settings: the values of --set.
        own: settings that have an option of their own; None: not given.
    """
    from moco.data.sources.background_scan import BackgroundScan
    from moco.planning.budget import parse_budget
    from moco.train.slurm import stop_at_once_on_signals

    stop_at_once_on_signals()
    with errors() as console:
        sources = BackgroundScan(data) if devices is None else data  # with --devices, each rank scans them
        run_options = RunOptions(**chosen)
        changes = _changes(views, settings, own)
        with_model = changes | ({"encoder.name": model} if model is not None else {})
        seconds = None if budget is None else parse_budget(budget)
        _check(data, run_options, recipe=recipe, changes=with_model, init=init)
        count_of_devices(devices)
        found = None
        if isinstance(sources, BackgroundScan):
            sources.check(WAIT)
            found = sources.found
        early_checks.check_out(out, run_options, data=data, images=found, init=init)
        with no_garbage_collection():
            from moco.train.pretrain import pretrain as run_pretrain
            from moco.train.rank_sync import ranks_for

        if (ranks := ranks_for(devices, run_options.device)) > 1:
            raise typer.Exit(_launch(ranks))
        run = run_pretrain(
            sources, out, recipe=recipe, model=model, bands=bands, settings=changes, init=init, budget=seconds,
            reporter=console, **chosen,
        )  # fmt: skip
        if as_json:
            _print_as_json(run)


def _print_as_json(run: "Run") -> None:
    """Print the recipe and the last values of a run, on rank 0 only."""
    from moco.distributed import on_main
    from moco.train.after_step import last_values
    from moco.train.run_folder import RunFolder

    if on_main():
        facts = {"run": str(run.path), "recipe": json.loads(run.recipe.to_json())}
        print(json.dumps(facts | last_values(RunFolder(run.path))))


def _changes(views: str | None, settings: list[str], own: dict[str, Any]) -> dict[str, Any]:
    """The changes to the recipe: by --views, then by --set, then by options of their own."""
    from moco.recipes import parse_settings
    from moco.recipes.domain_views import changes_for

    given = {name: value for name, value in own.items() if value is not None}
    return changes_for(views) | parse_settings(settings) | given


def _check(data: list[str], run_options: RunOptions, *, recipe: str, changes: dict[str, Any], init: str | None) -> None:
    """Refuse what is wrong for sure before torch is imported. Raises RecipeError, WeightsError, DataError."""
    early_checks.check_recipe(recipe, changes)
    early_checks.check_device_name(run_options.device)
    check_trackers(run_options.trackers)
    if init is not None:
        early_checks.check_weights(init)
    early_checks.check_sources(data, [str(run_options.eval_data)] if run_options.eval_data else [])


def _launch(ranks: int) -> int:
    """Run this same command in one process for each rank, and return its exit code."""
    from moco.cli import main
    from moco.launch import launch

    code = launch(main, ranks)
    if code < 0:  # a signal ended a rank: return the code that a shell would
        name = signal.Signals(-code).name
        complain(f"moco: a rank was ended by {name}. Run the same command again to resume")
        return 128 - code
    return code


class DemoName(StrEnum):
    pretrain = "pretrain"
    transfer = "transfer"


def demo(
    what: Annotated[
        DemoName,
        typer.Argument(
            metavar="pretrain|transfer",
            help="pretrain: pre-train and evaluate, a few minutes. transfer: also fine-tune on boxes, masks and pixels "
            "from several initial weights, half an hour.",
        ),
    ] = DemoName.pretrain,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The run folder to create or resume. [default: runs/demo...]"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps, to see that everything works.")] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the run.")] = 0,
    trials: Annotated[
        int, typer.Option(min=1, metavar="N", help="transfer: runs for each kind of initial weights.")
    ] = 3,
    photos: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="transfer: photographs for the backgrounds. [default: generated]"),
    ] = None,
    overwrite: OverwriteRun = False,
    workers: Workers = None,
    no_report: options.NoReport = False,
    as_json: Json = False,
) -> None:
    """Try it: pre-train on the included pictures, and evaluate.

    The same command resumes a demo that was stopped.
    """
    with errors() as console:
        if what is DemoName.transfer:
            _demo_transfer(
                out or Path("runs/demo-transfer"), console, quick=quick, trials=trials, photos=photos, seed=seed,
                workers=workers, overwrite=overwrite, as_json=as_json,
            )  # fmt: skip
            return
        out = out or Path("runs/demo")
        early_checks.check_out(out, RunOptions(overwrite=overwrite))
        with no_garbage_collection():
            from moco.demo import demo as run_demo

        table = run_demo(
            out, quick=quick, seed=seed, overwrite=overwrite, workers=workers, report=not no_report, reporter=console
        )  # fmt: skip
        print(json.dumps(table.to_dict()) if as_json else table)


def _demo_transfer(out: Path, reporter: Reporter, *, as_json: bool, **options: Any) -> None:
    from moco.transfer.demo.demo import transfer_demo

    tables = transfer_demo(out, reporter=reporter, **options)
    if as_json:
        print(json.dumps({name: table.to_dict() for name, table in tables.items()}))
    else:
        print("\n\n".join(f"{name}\n{table}" for name, table in tables.items()))
