"""moco eval: all, knn, linear, lowshot."""

import json
import os
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from moco.cli import early_checks
from moco.cli.errors import errors
from moco.cli.options import Architecture, Device, Json, Labelled, MaxBad, NoCache, Test, WeightsArgument, Workers


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
K = Annotated[int, typer.Option(min=1, metavar="N", help="Number of neighbours.")]
LabelsPerClass = Annotated[int, typer.Option(min=1, metavar="N", help="Labelled training images of each class.")]


@dataclass(frozen=True)
class Common:
    """The arguments and options that every kind of evaluation has."""

    weights: str
    data: list[str]
    test: str | None
    architecture: str | None
    device: str
    workers: int | None
    max_bad: float | None
    no_cache: bool
    as_json: bool


def all_(
    weights: WeightsArgument,
    data: Labelled,
    test: Test = None,
    k: K = 200,
    labels_per_class: LabelsPerClass = 10,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Evaluate by knn, linear and lowshot, in one table (the default)."""
    common = Common(weights, data, test, architecture, device, workers, max_bad, no_cache, as_json)
    _evaluate(ALL, common, k=k, labels_per_class=labels_per_class)


def knn(
    weights: WeightsArgument,
    data: Labelled,
    test: Test = None,
    k: K = 200,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="Neighbours are weighted by exp(cosine similarity / T).")
    ] = 0.1,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Classify by weighted nearest neighbours of frozen features.

    Similarity is the cosine. The table has 1-NN too.
    """
    common = Common(weights, data, test, architecture, device, workers, max_bad, no_cache, as_json)
    _evaluate("knn", common, k=k, temperature=temperature)


def linear(
    weights: WeightsArgument,
    data: Labelled,
    test: Test = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="lbfgs: fast, on cached features. v1, v3-resnet, v3-vit: SGD on images, as in the papers.",
        ),
    ] = "lbfgs",
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="LR|sweep",
            help="Learning rate of SGD for a batch of 256, or sweep: try several. [default: the protocol's]",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Epochs of SGD. [default: the protocol's]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Batch size of SGD. [default: the protocol's]")
    ] = None,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Train a linear classifier on frozen features."""
    with errors():
        rate = lr if lr in (None, "sweep") else _number("--lr", str(lr))
        common = Common(weights, data, test, architecture, device, workers, max_bad, no_cache, as_json)
        _evaluate("linear", common, protocol=protocol, lr=rate, epochs=epochs, batch_size=batch_size)


def lowshot(
    weights: WeightsArgument,
    data: Labelled,
    test: Test = None,
    labels_per_class: LabelsPerClass = 10,
    draws: Annotated[
        int, typer.Option(min=1, metavar="N", help="Random choices of these images, the same in every evaluation.")
    ] = 5,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Classify with few labels: a linear classifier and 1-NN."""
    common = Common(weights, data, test, architecture, device, workers, max_bad, no_cache, as_json)
    _evaluate("lowshot", common, labels_per_class=labels_per_class, draws=draws)


def _evaluate(kind: str, common: Common, **settings: Any) -> None:
    """Print the table of one kind of evaluation, or of all; `settings` are those of this kind."""
    with errors() as console:
        data = common.data
        early_checks.check_weights(common.weights)
        early_checks.check_device_name(common.device)
        early_checks.check_sources(data, [common.test] if common.test else [])
        early_checks.check_labels(data, common.test)

        from moco.cli.progress import show_progress
        from moco.text import printable

        with show_progress(console) as progress:
            progress.stage("loading torch")
            from moco.evaluate.evaluate import evaluate

            table = evaluate(
                kind, common.weights, data[0] if len(data) == 1 else data, settings=settings, test=common.test,
                architecture=common.architecture, device=common.device, workers=common.workers,
                max_bad=common.max_bad, cached=not common.no_cache, say=console.say, progress=progress,
            )  # fmt: skip
        print(json.dumps(table.to_dict()) if common.as_json else printable(str(table)))


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{option} expects a number or 'sweep', got '{text}'") from None
