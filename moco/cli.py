"""The command `moco`: parse, call, print. Results go to stdout, everything else to stderr."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from moco import __version__

app = typer.Typer(
    name="moco",
    help="Momentum Contrast: from a pile of images to a judged encoder.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
evaluation = typer.Typer(no_args_is_help=True, help="Judge an encoder on labelled images, beside its floors.")
runs = typer.Typer(no_args_is_help=True, help="Look at runs.")
app.add_typer(evaluation, name="eval")
app.add_typer(runs, name="runs")

FAILED, USAGE, BAD_DATA, DIVERGED, RESUMABLE = 1, 2, 3, 4, 75


class Resume(StrEnum):
    auto = "auto"
    never = "never"
    must = "must"


class Target(StrEnum):
    torchvision = "torchvision"
    timm = "timm"


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Threads that read images; never changes a result. [default: cores]")
]
Weights = Annotated[
    str, typer.Argument(help="A run folder, an encoder folder, a weights file, torchvision/NAME or timm/NAME.")
]
Labelled = Annotated[
    list[str],
    typer.Argument(help="A folder with train/ and test/ (or val/) of class folders, or one of those."),
]
Test = Annotated[str | None, typer.Option("--test", help="Labelled test images; all of DATA is then for training.")]
Architecture = Annotated[
    str | None, typer.Option(help="What a bare weights file is of, when it does not tell: timm/convnext_tiny, ...")
]
MaxBad = Annotated[
    float | None,
    typer.Option(min=0, help="Unreadable images allowed: a count, or below 1 a share. [default: 0.1 %, at least 10]"),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of all randomness. [default: the recipe's]")]


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Momentum Contrast: from a pile of images to a judged encoder."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def pretrain(
    data: Annotated[list[str], typer.Argument(help="Folders of images (flat or nested), or list files.")],
    out: Annotated[Path, typer.Option(help="The run folder to make, or to continue.")],
    recipe: Annotated[
        str, typer.Option(help="A recipe's name, a recipe.json, or auto: MoCo v2 fitted to the images.")
    ] = "auto",
    model: Annotated[
        str | None, typer.Option(help="resnet50, torchvision/NAME, timm/NAME, ... [default: the recipe's]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="[default: the recipe's]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: optim.epochs=20. Repeatable.")
    ] = None,
    seed: Seed = None,
    init: Annotated[
        str | None, typer.Option(help="Weights to start from: a run folder, a weights file, torchvision/NAME, ...")
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
    workers: Workers = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16 (autocast). [default: the recipe's]")
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the encoders.")] = False,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints. [default: a minute]")
    ] = None,
    max_bad: MaxBad = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Pre-train an encoder on a pile of images.

    Stopped by a signal, it saves and exits with 75; the same command continues, bit for bit.
    """
    with errors():
        from moco.recipes import parse_settings
        from moco.train.console import Console
        from moco.train.pretrain import pretrain as run_pretrain
        from moco.train.run import RunFolder
        from moco.train.watch import summary

        changes = parse_settings(settings or [])
        changes |= {"compute.precision": precision} if precision is not None else {}
        changes |= {"compute.compile": True} if compile_ else {}
        run = run_pretrain(
            data, out, recipe=recipe, model=model, epochs=epochs, settings=changes, seed=seed, init=init,
            eval_data=eval_data, eval_every=eval_every, resume=resume.value, overwrite=overwrite,
            accept_data_change=accept_data_change, device=device, workers=workers, save_every=save_every,
            max_bad=max_bad, dry_run=dry_run, reporter=Console(),
        )  # fmt: skip
        if as_json:
            facts = {"run": str(run.path), "recipe": json.loads(run.recipe.to_json())}
            print(json.dumps(facts | summary(RunFolder(run.path))))


@evaluation.command()
def knn(
    weights: Weights,
    data: Labelled,
    test: Test = None,
    k: Annotated[int, typer.Option(min=1, help="Neighbours.")] = 200,
    temperature: Annotated[float, typer.Option(help="Of the weights exp(similarity / T).")] = 0.1,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    as_json: Json = False,
) -> None:
    """Weighted k-nearest-neighbour classification of frozen features, by cosine similarity; 1-NN beside it."""
    _evaluate("knn", locals(), k=k, temperature=temperature)


@evaluation.command()
def linear(
    weights: Weights,
    data: Labelled,
    test: Test = None,
    protocol: Annotated[
        str, typer.Option(help="lbfgs: fast, on cached features. v1, v3-resnet, v3-vit: the papers' SGD on images.")
    ] = "lbfgs",
    lr: Annotated[
        str | None, typer.Option(help="SGD, for a batch of 256: a number, or sweep. [default: the protocol's]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="SGD. [default: the protocol's]")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="SGD. [default: the protocol's]")] = None,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    as_json: Json = False,
) -> None:
    """A linear classifier on frozen features."""
    with errors():
        rate = lr if lr in (None, "sweep") else _number("--lr", str(lr))
        _evaluate("linear", locals(), protocol=protocol, lr=rate, epochs=epochs, batch_size=batch_size)


@evaluation.command()
def lowshot(
    weights: Weights,
    data: Labelled,
    test: Test = None,
    labels_per_class: Annotated[int, typer.Option(min=1, help="Labelled training images of each class.")] = 10,
    draws: Annotated[int, typer.Option(min=1, help="Choices of these images, the same in every run.")] = 5,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    as_json: Json = False,
) -> None:
    """A linear classifier, and the nearest neighbour, with a few labels of each class."""
    _evaluate("lowshot", locals(), labels_per_class=labels_per_class, draws=draws)


def _evaluate(kind: str, options: dict[str, Any], **settings: Any) -> None:
    """Print the table of one kind of evaluation; `options` are those that all kinds have."""
    with errors():
        from moco.evaluate.judge import evaluate

        data = options["data"]
        table = evaluate(
            kind, options["weights"], data[0] if len(data) == 1 else data, settings=settings, test=options["test"],
            architecture=options["architecture"], device=options["device"], workers=options["workers"],
            max_bad=options["max_bad"],
        )  # fmt: skip
        print(json.dumps(table.to_dict()) if options["as_json"] else table)


@app.command()
def embed(
    weights: Weights,
    data: Annotated[list[str], typer.Argument(help="Folders of images, or list files.")],
    to: Annotated[Path, typer.Option(help="The file to write: .npy (with .names.txt beside it), .csv or .parquet.")],
    normalize: Annotated[bool, typer.Option("--normalize", help="Divide each feature by its length.")] = False,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
) -> None:
    """Write the features of images to a file, with the images' names."""
    with errors():
        from moco.data.decode import shown
        from moco.evaluate.embed import embed_to_file

        rows, left_out = embed_to_file(
            weights,
            data,
            to,
            normalize=normalize,
            architecture=architecture,
            device=device,
            workers=workers,
            max_bad=max_bad,
        )
        print(f"{rows:,} images embedded: {to}")
        for name, reason in left_out.items():
            print(f"left out: {shown(name)}: {reason}", file=sys.stderr)


@app.command()
def export(
    weights: Weights,
    to: Annotated[Target, typer.Option(help="The library that is to load it.")],
    out: Annotated[Path, typer.Option(help="The file to write: .safetensors, .pth or .pt.")],
    architecture: Architecture = None,
) -> None:
    """Write the encoder's weights for a library, and check that it gives the same features there."""
    with errors():
        from moco.encoders.export import export as write

        print(write(weights, to=to.value, out=out, architecture=architecture))


@runs.command("ls")
def ls(
    folder: Annotated[Path, typer.Argument(help="A folder of runs, or a run.")] = Path("runs"), as_json: Json = False
) -> None:
    """List runs with their last logged values."""
    with errors():
        from moco.report.runs import describe, find_runs, table

        rows = [describe(run) for run in find_runs(folder)]
        print(json.dumps(rows) if as_json else table(rows))


@runs.command()
def compare(a: Path, b: Path, as_json: Json = False) -> None:
    """What two runs differ in, setting by setting, and their last logged values."""
    with errors():
        from moco.report.runs import describe, differences, table
        from moco.train.run import RunFolder

        lines, rows = differences(a, b), [describe(RunFolder(path)) for path in (a, b)]
        if as_json:
            print(json.dumps({"differences": lines, "runs": rows}))
        else:
            print("\n".join(lines or ["the same recipe"]), table(rows), sep="\n\n")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="One epoch, only to see that everything works.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of all randomness.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the run that is in --out first.")] = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Pre-train on the 12,000 pictures that come along, and judge the encoder: some minutes on two cores."""
    with errors():
        from moco.demo import demo as run_demo
        from moco.train.console import Console

        table = run_demo(out, quick=quick, seed=seed, overwrite=overwrite, workers=workers, reporter=Console())
        print(json.dumps(table.to_dict()) if as_json else table)


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{option} expects a number or 'sweep', got '{text}'") from None


@contextmanager
def errors() -> Iterator[None]:
    """Turn what can go wrong into one message on stderr and an exit code."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        print(f"moco: {error}", file=sys.stderr)
        raise typer.Exit(code) from error


def _code(error: Exception) -> int | None:
    """The exit code of an error that has a message for the user; None for one that is a fault of ours."""
    from moco.data.images import DataError
    from moco.recipe import RecipeError
    from moco.train.checkpoint import CheckpointError
    from moco.train.watch import Diverged, Stopped

    codes: list[tuple[type[Exception], int]] = [
        (Stopped, RESUMABLE), (Diverged, DIVERGED), (FloatingPointError, DIVERGED), (DataError, BAD_DATA),
        (RecipeError, USAGE), (CheckpointError, FAILED), (OSError, FAILED), (ImportError, FAILED),
    ]  # fmt: skip
    return next((code for kind, code in codes if isinstance(error, kind)), None)


def main() -> None:
    """The entry point."""
    # threads of OpenMP that wait for work must not spin: beside other processes that took up to 70 times the CPU time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
