"""moco eval: all, knn, linear, lowshot."""

import json
import os
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from moco.cli import checks
from moco.cli.errors import errors
from moco.cli.options import Architecture, Device, Json, Labelled, MaxBad, NoCache, Test, Weights, Workers


class OrAll(TyperGroup):
    """Reads `moco eval WEIGHTS DATA` as `moco eval all WEIGHTS DATA`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        first = args[0]
        is_kind = first in self.commands or (not os.path.exists(first) and get_close_matches(first, self.commands))
        return super().resolve_command(ctx, args if is_kind else [ALL, *args])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        option_first = bool(args) and args[0].startswith("-") and args[0] not in ctx.help_option_names
        return super().parse_args(ctx, [ALL, *args] if option_first else args)


ALL = "all"


def all_(
    weights: Weights,
    data: Labelled,
    test: Test = None,
    k: Annotated[int, typer.Option(min=1, help="Neighbours.")] = 200,
    labels_per_class: Annotated[int, typer.Option(min=1, help="Labelled training images of each class.")] = 10,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """knn, linear and lowshot in one table (the default)."""
    _evaluate(ALL, locals(), k=k, labels_per_class=labels_per_class)


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
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Weighted nearest neighbours, by cosine similarity.

    Of frozen features; 1-NN beside it.
    """
    _evaluate("knn", locals(), k=k, temperature=temperature)


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
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """A linear classifier on frozen features."""
    with errors():
        rate = lr if lr in (None, "sweep") else _number("--lr", str(lr))
        _evaluate("linear", locals(), protocol=protocol, lr=rate, epochs=epochs, batch_size=batch_size)


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
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """A linear classifier and 1-NN, with few labels of each class."""
    _evaluate("lowshot", locals(), labels_per_class=labels_per_class, draws=draws)


def _evaluate(kind: str, options: dict[str, Any], **settings: Any) -> None:
    """Print the table of one kind of evaluation, or of all; `options` are those that all kinds have."""
    with errors() as console:
        data = options["data"]
        checks.check_weights(options["weights"])
        checks.check_device(options["device"])
        checks.check_sources([*data, *([options["test"]] if options["test"] else [])])

        from moco.cli.progress import shown_progress
        from moco.text import printable

        with shown_progress(console) as progress:
            progress.stage("loading torch")
            from moco.evaluate.judge import evaluate

            table = evaluate(
                kind, options["weights"], data[0] if len(data) == 1 else data, settings=settings, test=options["test"],
                architecture=options["architecture"], device=options["device"], workers=options["workers"],
                max_bad=options["max_bad"], cached=not options["no_cache"], say=console.say, progress=progress,
            )  # fmt: skip
        print(json.dumps(table.to_dict()) if options["as_json"] else printable(str(table)))


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{option} expects a number or 'sweep', got '{text}'") from None
