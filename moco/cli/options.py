"""Options and arguments that several commands have."""

from enum import StrEnum
from typing import Annotated

import typer


class Resume(StrEnum):
    auto = "auto"
    never = "never"
    must = "must"


class Target(StrEnum):
    torchvision = "torchvision"
    timm = "timm"
    hf = "hf"
    fair = "fair"
    deit = "deit"
    detectron2 = "detectron2"
    onnx = "onnx"


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Threads that read images; no result depends on it. [default: cores, at most 8]"),
]
Weights = Annotated[
    str, typer.Argument(help="A run folder, an encoder folder, a file, torchvision/NAME, timm/NAME or fair:NAME.")
]
Labelled = Annotated[
    list[str],
    typer.Argument(
        help="A folder with train/ and test/ (or val/, valid/, dev/ ...) of class folders, or one of those."
    ),
]
Test = Annotated[str | None, typer.Option("--test", help="Labelled test images; all of DATA is then for training.")]
Architecture = Annotated[
    str | None, typer.Option(help="What a bare weights file is of, when it does not tell: timm/convnext_tiny, ...")
]
MaxBad = Annotated[
    float | None,
    typer.Option(min=0, help="Unreadable images allowed: a count, or below 1 a share. [default: 0.1 %, at least 10]"),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Compute all features, and keep none in the folder `features` of the weights."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of all randomness. [default: the recipe's]")]
