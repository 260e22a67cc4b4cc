"""moco embed, export, import, weights."""

import json
from pathlib import Path
from typing import Annotated

import typer

from moco.cli import early_checks
from moco.cli.errors import errors, interruptions
from moco.cli.options import (
    Architecture,
    CacheFolder,
    CacheSize,
    Device,
    Json,
    MaxBad,
    OverwriteFiles,
    Target,
    WeightsArgument,
    Workers,
)


def embed(
    weights: WeightsArgument,
    data: Annotated[list[str], typer.Argument(metavar="DATA", help="Folders of images, list files, or single images.")],
    to: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write: .npy (and .names.txt beside it), .csv or .parquet.")
    ],
    normalize: Annotated[bool, typer.Option("--normalize", help="Divide each feature by its length.")] = False,
    architecture: Architecture = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    cache: CacheFolder = None,
    cache_size: CacheSize = None,
    overwrite: OverwriteFiles = False,
    as_json: Json = False,
) -> None:
    """Write the features of images to a file, with their names."""
    with errors() as console:
        early_checks.check_features_file(to, overwrite=overwrite)
        early_checks.check_device_name(device)
        early_checks.check_weights(weights)
        early_checks.check_sources(data, single=True)

        from moco.atomic_output import feature_files
        from moco.cli.progress import show_progress
        from moco.text import escape, one_line, printable

        with interruptions(console, feature_files(to)), show_progress(console) as progress:
            progress.stage("loading torch")
            from moco.evaluate.embed import embed_to_file

            done = embed_to_file(
                weights, data, to, normalize=normalize, architecture=architecture, device=device, workers=workers,
                max_bad=max_bad, overwrite=overwrite, progress=progress,
            )  # fmt: skip
        for name, reason in done.left_out.items():
            console.say(f"left out: {escape(name)}: {one_line(reason)}")
        said = f"{done.images:,} images embedded: {' and '.join(map(str, done.files))}"
        print(json.dumps(done.to_dict()) if as_json else printable(said))


def export(
    weights: WeightsArgument,
    to: Annotated[
        Target, typer.Option(metavar="FORMAT", help="torchvision, timm, hf, fair, deit, detectron2 or onnx.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="The file or folder to write. torchvision, timm: .safetensors, .pth or .pt. fair: .pth.tar, .pth or "
            ".pt. deit, detectron2: .pth. onnx: .onnx. hf: a new folder.",
        ),
    ],
    architecture: Architecture = None,
    overwrite: OverwriteFiles = False,
    as_json: Json = False,
) -> None:
    """Write the encoder's weights for another library or program.

    It then loads the weights with that library, and fails if the features differ. A segmenter or classifier that was
    fine-tuned by `moco transfer` is written --to onnx.
    """
    from moco.weights.export_paths import check_outputs, export_files

    with errors() as console:
        files = export_files(out, to.value)
        check_outputs(files, to.value, overwrite=overwrite)
        early_checks.check_weights(weights)

        from moco.cli.progress import show_progress
        from moco.text import printable

        with interruptions(console, files), show_progress(console) as progress:
            progress.stage("loading torch")
            from moco.exporting import export as write

            progress.stage("export and its check")
            said = str(write(weights, to=to.value, out=out, architecture=architecture, overwrite=overwrite))
        done = {"to": to.value, "files": list(map(str, files)), "said": said}
        print(json.dumps(done) if as_json else printable(said))


def import_(
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="A weights file in any format that moco reads, or fair:NAME.")
    ],
    out: Annotated[Path, typer.Option(metavar="PATH", help="The folder to create.")],
    architecture: Architecture = None,
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix",
            metavar="PREFIX",
            help="For a file with several networks: what the encoder's tensor names begin with.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Convert weights of another tool into an encoder folder.

    Other commands take this folder as WEIGHTS, and pretrain as --init.
    """
    from moco.weights.export_paths import check_new_folder

    with errors() as console:
        check_new_folder(out)
        early_checks.check_weights(weights)

        from moco.cli.progress import show_progress
        from moco.text import printable

        with interruptions(console, [out]), show_progress(console) as progress:
            progress.stage("loading torch")
            from moco.weights.import_file import import_weights
            from moco.weights.import_folder import CONTENTS

            progress.stage("import")
            said = str(import_weights(weights, out=out, architecture=architecture, prefix=prefix))
        done = {"out": str(out), **json.loads((out / CONTENTS).read_bytes())} if as_json else {}
        print(json.dumps(done) if as_json else printable(said))
        then = f"Next: moco eval {out} LABELLED_FOLDER, or moco pretrain DATA --init {out}"
        console.say(then)


def list_released(as_json: Json = False) -> None:
    """List the weights that MoCo's authors have released.

    Every command with WEIGHTS takes these names, and downloads the file.
    """
    with errors():
        from moco.weights.official.released import RELEASED

        if as_json:
            print(json.dumps([one._asdict() for one in RELEASED]))
            return
        for one in RELEASED:
            print(one.name, one.address, f"licence {one.licence}", f"MD5 {one.md5 or 'not published'}", sep="\n    ")
