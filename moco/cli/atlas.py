"""moco atlas, search, dedup."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from moco.cli import early_checks
from moco.cli.errors import errors, interruptions
from moco.cli.options import Device, Json, MaxBad, OverwriteFiles, WeightsArgument, Workers

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="A run, or other weights, with DATA; or a file of features by moco embed."),
]
SomeImages = Annotated[
    list[str] | None, typer.Argument(metavar="DATA", help="Folders of images, or list files.")
]  # fmt: skip
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold", min=0.0, max=1.0, metavar="X",
        help="Least similarity of near-duplicates. [default: measured on copies of some images; 0.95 for a file "
        "of features]",
    ),
]  # fmt: skip
ListFile = Annotated[
    Path | None, typer.Option("--list", metavar="FILE", help="Write the paths to this file, one a line.")
]

HtmlFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="The HTML file to write. [default: atlas.html in the run, or here]"),
]
Clusters = Annotated[int, typer.Option("--clusters", min=1, metavar="N", help="Number of clusters.")]
MapSeed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the map.")]
Serve = Annotated[bool, typer.Option("--serve", help="Write no file, but show the map by a server on this machine.")]
Port = Annotated[
    int,
    typer.Option(
        "--port", min=0, max=65535, metavar="N", help="The server's port. [default: a free one]", show_default=False
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", metavar="WEIGHTS", help="With --serve: the weights that made a file of features."),
]


def atlas(
    source: Source,
    data: SomeImages = None,
    out: HtmlFile = None,
    clusters: Clusters = 12,
    threshold: Threshold = None,
    seed: MapSeed = 0,
    serve: Serve = False,
    port: Port = 0,
    encoder: EncoderOption = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    as_json: Json = False,
) -> None:
    """Make a map of images, as one HTML file, with search by example.

    Similar images are near each other. The page shows thumbnails, lists what a lasso selects, finds images like
    examples and unlike others, and lists near-duplicates and outliers. It needs no network. A .parquet table beside it
    has places and neighbours. --serve is for more than 20,000 images, and to search by any file.
    """
    settings = {"seed": seed, "clusters": clusters, "threshold": threshold, "device": device, "workers": workers}
    with errors() as console:
        _check(source, data or [], device)
        early_checks.check_page(out)
        _check_served(serve, out, port, encoder)
        from moco.cli.progress import show_progress

        with interruptions(console, []), show_progress(console) as progress:
            progress.stage("loading torch")
            common = settings | {"max_bad": max_bad, "say": console.say, "progress": progress}
            from moco.atlas.make_atlas import write_atlas
            from moco.atlas.serve import make_server

            made: Any = (
                make_server(source, data, encoder=encoder, port=port, **common)
                if serve
                else write_atlas(source, data, out, **common)
            )
        if not serve:
            print(json.dumps(made.to_dict()) if as_json else made)
            return
        print(json.dumps({"url": made.url}) if as_json else made.url, flush=True)
        console.say("Open this address in a browser on this machine. Ctrl-C ends the server.")
        with suppress(KeyboardInterrupt):
            made.serve_forever()


def search(
    weights: WeightsArgument,
    queries: Annotated[list[str], typer.Argument(metavar="QUERY", help="Images to search for.")],
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="DATA", help="Where to search: folders, list files, or a file by moco embed."),
    ],
    unlike: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="FILE", help="An image that the results should not resemble. May be repeated."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="How many images to show.")] = 20,
    out: ListFile = None,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    overwrite: OverwriteFiles = False,
    as_json: Json = False,
) -> None:
    """Find the images that are most similar to examples.

    Prints cosine similarity and path, the most similar first. The query is the mean of the examples' features minus
    half the mean of those of --not.
    """
    with errors() as console:
        _check(weights, [] if len(data) == 1 and _ends_as_features(data[0]) else data, device)
        early_checks.check_sources(*([one] for one in (*queries, *(unlike or []))), single=True)
        _check_list(out, overwrite=overwrite)
        from moco.cli.progress import show_progress
        from moco.text import printable

        with interruptions(console, [out] if out else []), show_progress(console) as progress:
            progress.stage("loading torch")
            from moco.atlas.search import search as run

            found = run(
                weights, queries, data[0] if len(data) == 1 else data, unlike=unlike or (), k=k, device=device,
                workers=workers, max_bad=max_bad, say=console.say, progress=progress,
            )  # fmt: skip
        _write_list(out, [one.path for one in found])
        if as_json:
            print(json.dumps([{"path": one.path, "similarity": one.similarity} for one in found]))
            return
        for one in found:
            print(f"{one.similarity:.4f}  {printable(one.path)}")


def dedup(
    source: Source,
    data: SomeImages = None,
    threshold: Threshold = None,
    out: ListFile = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all pairs, however many there are.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    max_bad: MaxBad = None,
    overwrite: OverwriteFiles = False,
    as_json: Json = False,
) -> None:
    """Find near-duplicates by their features; no image is changed.

    Each group begins with the image to keep, the first in order. The others are at least --threshold similar to it.
    By default the command measures the threshold: it makes changed copies of some images, and takes the similarity that
    best separates copies from other images. --list writes all images but the duplicates; pretrain takes this list as
    DATA.
    """
    with errors() as console:
        _check(source, data or [], device)
        _check_list(out, overwrite=overwrite)
        from moco.cli.progress import show_progress
        from moco.text import printable

        with interruptions(console, [out] if out else []), show_progress(console) as progress:
            progress.stage("loading torch")
            from moco.atlas.dedup import dedup as run

            found = run(
                source, data, threshold=threshold, exact=exact or None, device=device, workers=workers,
                max_bad=max_bad, say=console.say, progress=progress,
            )  # fmt: skip
        _write_list(out, found.keep)
        print(json.dumps(found.to_dict()) if as_json else printable(str(found)))


def _check(source: str, data: list[str], device: str) -> None:
    early_checks.check_device_name(device)
    if not _ends_as_features(source):
        early_checks.check_weights(source)
    elif not Path(source).exists():
        early_checks.check_sources([source])
    early_checks.check_sources(data)


def _ends_as_features(path: str) -> bool:
    return path.endswith(early_checks.FEATURE_FILES)


def _check_served(serve: bool, out: Path | None, port: int, encoder: str | None) -> None:
    from moco.recipe_error import RecipeError

    if serve and out is not None:
        raise RecipeError("--serve writes no file: leave out --out")
    if not serve and (port or encoder is not None):
        raise RecipeError("--port and --encoder belong to --serve")
    if encoder is not None:
        early_checks.check_weights(encoder)


def _check_list(out: Path | None, *, overwrite: bool) -> None:
    from moco.atomic_output import refuse_existing
    from moco.recipe_error import RecipeError

    if out is None:
        return
    if not out.parent.is_dir():
        raise RecipeError(f"{out} cannot be written: the folder {out.parent} does not exist. Create it first")
    refuse_existing([out], overwrite=overwrite)


def _write_list(out: Path | None, paths: Any) -> None:
    from moco.evaluate.embed import escape_line_breaks
    from moco.files import write_text

    if out is not None:
        write_text(out, "".join(f"{escape_line_breaks(path)}\n" for path in paths))
