"""Options and arguments of commands: names, types and help texts."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from moco.cli import completion
from moco.data.remote.settings import CACHE, CACHE_SIZE, parse_size
from moco.files import is_url_path, local_only


class Resume(StrEnum):
    auto = "auto"
    never = "never"
    must = "must"


class Collapse(StrEnum):
    warn = "warn"
    stop = "stop"


class Target(StrEnum):
    torchvision = "torchvision"
    timm = "timm"
    hf = "hf"
    fair = "fair"
    deit = "deit"
    detectron2 = "detectron2"
    onnx = "onnx"


def set_cache(folder: str | None) -> str | None:
    """Pass --cache on, also to processes that are started: by the environment."""
    if folder is not None:
        if is_url_path(folder):
            raise typer.BadParameter(local_only(folder))
        os.environ[CACHE] = folder
    return folder


def set_cache_size(size: str | None) -> str | None:
    """As `set_cache`, for --cache-size."""
    if size is not None:
        try:
            parse_size(size)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        os.environ[CACHE_SIZE] = size
    return size


# Of several commands.
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Threads that read images; any number gives the same result. [default: one per core, at most 8]",
    ),
]
MaxBad = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="N",
        help="Unreadable images to tolerate: a number of images, or a share below 1. [default: 0.1 %, at least 10]",
    ),
]  # fmt: skip
CacheFolder = Annotated[
    str | None,
    typer.Option(
        "--cache", metavar="FOLDER", callback=set_cache,
        help="The folder for copies of images from URLs, with --cache-size. [default: the user's cache]",
    ),
]  # fmt: skip
CacheSize = Annotated[
    str | None,
    typer.Option(
        "--cache-size", metavar="SIZE", callback=set_cache_size,
        help="Keep copies of images from URLs, up to this size, such as 20G. [default: none are kept]",
    ),
]  # fmt: skip
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed of the run. [default: the recipe's]")]
OverwriteRun = Annotated[bool, typer.Option("--overwrite", help="Remove the run in --out, and start again.")]
OverwriteFiles = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]

# Of commands that read weights.
WeightsArgument = Annotated[
    str,
    typer.Argument(
        metavar="WEIGHTS", help="A run folder, an encoder folder, a file, torchvision/NAME, timm/NAME or fair:NAME."
    ),
]
Architecture = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The network of a weights file that does not name it: timm/convnext_tiny, ..."),
]
Labelled = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="A folder with train/ and test/ (or val/, valid/, dev/ ...) of class folders, or a folder of class "
        "folders.",
    ),
]
Test = Annotated[
    str | None,
    typer.Option("--test", metavar="PATH", help="Labelled test images; all of DATA is then used for training."),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache", help="Compute all features again, and store none in the folder `features` of the weights."
    ),
]

# Of pretrain and ablate.
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="Folders of images (flat or nested), list files, shards (tar), zip files, tables; also URLs.",
    ),
]
OutOption = Annotated[Path, typer.Option(metavar="PATH", help="The run folder to create or resume.")]
RecipeName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=completion.recipe_names,
        help="A recipe's name, a recipe.json, or auto: MoCo v2 fitted to the images.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completion.model_names,
        help="Encoder: resnet50, torchvision/NAME, timm/NAME, ... [default: the recipe's]",
    ),
]
EpochsOption = Annotated[
    float | None, typer.Option(min=0.01, metavar="N", help="Passes over the images. [default: the recipe's]")
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="The time that the run may take, such as 10m or 8h. The command measures this machine and chooses the "
        "length, and with auto the network.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Images in a step, on all devices together. [default: the recipe's]"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        autocompletion=completion.list_setting_names,
        help="Change a setting of the recipe, for example optim.lr=0.1. May be repeated.",
    ),
]
Views = Annotated[
    str | None,
    typer.Option(
        "--views",
        metavar="KIND",
        autocompletion=completion.kinds_of_views,
        help="Views for a kind of images: natural, aerial, microscopy, histology, xray, document, drawing, thermal, "
        "multispectral or small (docs/data.md). [default: the recipe's]",
    ),
]
Bands = Annotated[
    bool,
    typer.Option(
        "--bands",
        help="Read all bands of each image in full depth: any number of them, 8, 16 or 32 bits, floats. Their ranges "
        "are measured. Without it images are read as 8-bit RGB.",
    ),
]
Init = Annotated[
    str | None,
    typer.Option(metavar="WEIGHTS", help="Weights to start from: a run folder, a file, timm/NAME, fair:NAME, ..."),
]
EvalDataOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="Labelled images for a kNN score during training.")
]
EvalEvery = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Epochs between kNN scores. [default: a twentieth of the run]"),
]
ResumeMode = Annotated[
    Resume,
    typer.Option(
        "--resume", metavar="auto|never|must",
        help="If --out holds a run, resume it (auto, must) or refuse it (never). must: refuse a folder without a run.",
    ),
]  # fmt: skip
AcceptDataChange = Annotated[
    bool, typer.Option("--accept-data-change", help="Resume a run although its images have changed.")
]
Devices = Annotated[
    str | None,
    typer.Option(metavar="N", help="GPUs, or processes on the CPU, that train together; auto: all GPUs. [default: 1]"),
]
Processes = Annotated[
    bool, typer.Option("--processes", help="Read images in processes, not threads: for many cores and a fast GPU.")
]
Precision = Annotated[
    str | None,
    typer.Option(metavar="DTYPE", help="fp32, or autocast with bf16 or fp16. [default: the recipe's]"),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the encoders with torch.compile.")]
SaveEvery = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Steps between checkpoints. [default: one a minute]")
]
WaitForSaves = Annotated[
    bool,
    typer.Option(
        "--wait-for-saves",
        help="Stop training until each checkpoint is on the disk. Without it, a copy in memory is written while "
        "training goes on.",
    ),
]
Keep = Annotated[int, typer.Option(min=1, metavar="N", help="Checkpoints to keep: the newest N.")]
KeepEvery = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Also keep the checkpoint of every N-th step. [default: none]"),
]
OnNan = Annotated[
    str,
    typer.Option(
        "--on-nan", metavar="stop|skip:N",
        help="At a step with a NaN or infinite number: stop, or skip up to N such steps. Neither changes the weights.",
    ),
]  # fmt: skip
OnCollapse = Annotated[
    Collapse,
    typer.Option(
        "--on-collapse", metavar="warn|stop",
        help="If the embeddings of all images become the same in two measurements: warn, or save and stop.",
    ),
]  # fmt: skip
DiagnoseEvery = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Steps between two measurements of the diagnosis. 0: none. [default: they take 2 % of the time]",
    ),
]
Patience = Annotated[
    float,
    typer.Option(min=0, metavar="MINUTES", help="End the run if it makes no progress for so many minutes. 0: never."),
]
NoCompare = Annotated[
    bool,
    typer.Option(
        "--no-compare",
        help="Do not compare the encoder with baselines at the end, which takes a twentieth of the run's time.",
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log", metavar="TRACKER", autocompletion=completion.tracker_names,
        help="Send the metrics to tensorboard, wandb, mlflow or trackio too. May be repeated.",
    ),
]  # fmt: skip
NoReport = Annotated[bool, typer.Option("--no-report", help="Write no report.html at the end of the run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Make all checks, print the plan and exit.")]
