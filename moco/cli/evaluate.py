"""moco eval knn, linear, lowshot."""

import json
from typing import Annotated, Any

import typer

from moco.cli import checks
from moco.cli.errors import errors
from moco.cli.options import Architecture, Device, Json, Labelled, MaxBad, Test, Weights, Workers


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
        data = options["data"]
        checks.check_weights(options["weights"])
        checks.check_device(options["device"])
        checks.check_sources([*data, *([options["test"]] if options["test"] else [])])

        from moco.evaluate.judge import evaluate
        from moco.text import printable

        table = evaluate(
            kind, options["weights"], data[0] if len(data) == 1 else data, settings=settings, test=options["test"],
            architecture=options["architecture"], device=options["device"], workers=options["workers"],
            max_bad=options["max_bad"],
        )  # fmt: skip
        print(json.dumps(table.to_dict()) if options["as_json"] else printable(str(table)))


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{option} expects a number or 'sweep', got '{text}'") from None
