"""moco transfer."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moco.cli import early_checks, options
from moco.cli.errors import errors
from moco.cli.options import Device, Json, OverwriteRun, Resume, Workers
from moco.recipe_error import RecipeError
from moco.text import escape
from moco.train.options import RunOptions
from moco.train.trackers import check_trackers

if TYPE_CHECKING:
    from moco.transfer.comparison import TransferComparison


class TaskName(StrEnum):
    """The tasks of moco.transfer.task_registry, which imports torch."""

    detect = "detect"
    instance = "instance"
    keypoints = "keypoints"
    densepose = "densepose"
    lvis = "lvis"
    cityscapes = "cityscapes"
    classify = "classify"
    segment = "segment"


Norm = Literal["tuned", "sync", "frozen"]  # as in moco.transfer.models.settings, which imports torch

TaskArgument = Annotated[TaskName, typer.Argument(metavar="TASK", help=", ".join(TaskName) + ".")]
DataOption = Annotated[
    Path,
    typer.Option("--data", metavar="PATH", help="Annotated images: VOC, COCO, class folders, ... (docs/transfer.md)."),
]
TestData = Annotated[
    Path | None,
    typer.Option(
        "--test", metavar="PATH", help="Annotated images to test on. [default: one in five of --data is held out]"
    ),
]
Inits = Annotated[
    list[str],
    typer.Option(
        "--init", metavar="NAME=WEIGHTS",
        help="Weights to start from, and their name in the table. random: random parameters. May be repeated.",
    ),
]  # fmt: skip
Versus = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The --init that the others are compared with. [default: supervised, or the first]"
    ),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The model on top of the encoder. Detectors: fpn (default), c4, dc5. segment: fcn."
    ),
]
Bn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]tuned|sync|frozen",
        help="BN layers are tuned, tuned and synchronized over the ranks, or frozen. NAME=: for that --init only. "
        "[default: sync]",
    ),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A schedule of the papers (24k, 1x, 30k, inat, v3, ...), or a number of iterations. "
        "[default: the paper's]",
    ),
]
Trials = Annotated[int, typer.Option(min=1, metavar="N", help="Runs for each --init, with different seeds.")]
Lr = Annotated[float | None, typer.Option("--lr", metavar="LR", help="Learning rate. [default: the recipe's]")]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="The encoder, if every --init is random: resnet50, ...")
]
Format = Annotated[
    str | None, typer.Option(metavar="NAME", help="Format of the annotations. [default: recognised from the files]")
]
BodySurface = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="densepose: the SMPL files of DensePose's authors (docs/transfer.md)."),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="The split of --data to train on: 2007_trainval, ...")]
TestSplit = Annotated[
    str | None, typer.Option(metavar="NAME", help="The split to test on, of --test or else of --data.")
]


def transfer(
    task: TaskArgument, data: DataOption, out: options.OutOption, init: Inits, test: TestData = None,
    arch: ArchOption = None, bn: Bn = None, schedule: ScheduleOption = None, trials: Trials = 1, versus: Versus = None,
    model: Model = None, batch_size: options.BatchSize = None, lr: Lr = None, settings: options.Settings = None,
    seed: options.Seed = None, split: Split = None, test_split: TestSplit = None, format: Format = None,
    body_surface: BodySurface = None,
    resume: options.ResumeMode = Resume.auto, overwrite: OverwriteRun = False, device: Device = "auto",
    workers: Workers = None, save_every: options.SaveEvery = None, on_nan: options.OnNan = "stop",
    patience: options.Patience = 30, log: options.Log = None, dry_run: options.DryRun = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Fine-tune a model from several initial weights, and compare.

    All runs have the same images and settings. The same command resumes where it stopped, bit for bit.
    """
    with errors() as console:
        from moco.transfer.paper_tasks import check_task

        changes = _changes(settings or [], {"optim.batch_size": batch_size, "optim.lr": lr, "seed": seed})
        (for_all, bn_of), init_of = _norms(bn or []), _by_name(init)
        early_checks.check_device_name(device)
        check_task(task.value, arch, schedule, {"bn": for_all, **changes}, format)
        _check(data, out, test, init_of, model, names=(versus, bn_of), overwrite=overwrite)
        RunOptions(resume=resume.value, on_nan=on_nan, patience=patience, save_every=save_every)
        check_trackers(log or [])
        from moco.transfer.transfer import transfer as run_transfer

        table = run_transfer(
            task.value, data, out, init=init_of, test=test, arch=arch, bn=for_all, bn_of=bn_of, versus=versus,
            schedule=schedule, trials=trials, model=model, settings=changes, split=(split, test_split), format=format,
            body_surface=body_surface, reporter=console, resume=resume.value, overwrite=overwrite, device=device,
            workers=workers, save_every=save_every, on_nan=on_nan, patience=patience, log=log or (),
            dry_run=dry_run,
        )  # fmt: skip
        if not dry_run:
            _print_on_main(table, as_json=as_json)


def _check(
    data: Path, out: Path, test: Path | None, init_of: dict[str, str], model: str | None, *,
    names: tuple[str | None, dict[str, Norm]], overwrite: bool,
) -> None:  # fmt: skip
    """Refuse what is wrong for sure before torch is imported. `names`: the values of --versus and --bn."""
    from moco.transfer.check_arguments import check_names, check_network, check_paths

    for weights in init_of.values():
        if weights != "random":
            early_checks.check_weights(weights)
    for images in (data, *([] if test is None else [test])):
        early_checks.check_annotations(images)
    check_names(init_of, *names)
    check_paths(data, out, test, init_of, overwrite=overwrite)
    check_network(init_of, model)
    if model is not None:
        early_checks.check_encoder(model)


def _print_on_main(table: "TransferComparison", *, as_json: bool) -> None:
    """Print the table, on rank 0 only."""
    from moco.distributed import on_main

    if on_main():
        print(json.dumps(table.to_dict()) if as_json else table)


def _changes(settings: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The changes to the recipe by --set and by options of their own, which win."""
    from moco.recipes import parse_settings

    return parse_settings(settings) | {name: value for name, value in options.items() if value is not None}


def _by_name(given: list[str]) -> dict[str, str]:
    """The weights by name. Raises RecipeError for a name that is given twice."""
    pairs = list(map(_named, given))
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"--init {twice} is given twice: name the weights differently, --init NAME=WEIGHTS")
    return dict(pairs)


def _norms(given: list[str]) -> tuple[Norm, dict[str, Norm]]:
    """The choices of --bn: for all weights, and for some by name. Raises RecipeError for an unknown or repeated one."""
    found: dict[str, Norm] = {}
    for one in given:
        name, _, norm = one.rpartition("=")
        if norm not in ("tuned", "sync", "frozen"):
            raise RecipeError(f"--bn expects tuned, sync, frozen or NAME= and one of these, got '{escape(one)}'")
        if name in found:
            raise RecipeError(f"--bn {escape(one)}: BN of {name or 'all weights'} is given twice")
        found[name] = norm
    return found.pop("", "sync"), found


def _named(text: str) -> tuple[str, str]:
    """NAME=WEIGHTS; a plain WEIGHTS is named after itself."""
    name, equals, weights = text.partition("=")
    return (name, weights) if equals else (Path(text).name or text, text)
