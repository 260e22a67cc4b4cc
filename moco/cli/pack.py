"""moco pack."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from moco.cli import early_checks
from moco.cli.errors import INTERRUPTED, errors
from moco.cli.options import Images, Json, OverwriteFiles

To = Annotated[Path, typer.Option(metavar="FOLDER", help="The folder for the shards.")]
ResizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Shrink images whose shorter side is longer than this, and store them as JPEG. [default: copy files as "
        "they are]",
    ),
]
Quality = Annotated[int, typer.Option(min=1, max=100, metavar="N", help="JPEG quality of images that are shrunk.")]
ShardSize = Annotated[int, typer.Option(min=1, metavar="N", help="Images in a shard.")]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Threads, each of which writes a shard. [default: one per core]")
]


def pack(
    data: Images,
    to: To,
    resize: ResizeOption = None,
    quality: Quality = 90,
    shard_size: ShardSize = 10_000,
    workers: Threads = None,
    overwrite: OverwriteFiles = False,
    as_json: Json = False,
) -> None:
    """Pack images into shards (tar files), which are read faster.

    Shards are tar files in the layout of WebDataset. The same command continues one that was
    interrupted. `moco pretrain FOLDER` reads the shards as it reads images.
    """
    with errors() as console:
        early_checks.check_sources(data)
        from moco.data.shards.pack import pack as pack_images
        from moco.data.sources.open import open_images
        from moco.text import escape, plural, printable

        images = open_images(data)
        try:
            done = pack_images(
                images, to, resize=resize, quality=quality, shard_size=shard_size, overwrite=overwrite,
                workers=(os.cpu_count() or 1) if workers is None else workers,
                progress=lambda count: console.live(f"packing: {count:,} of {len(images):,} images"),
            )  # fmt: skip
        except KeyboardInterrupt:
            console.say("moco: interrupted. Run the same command again to write the missing shards")
            raise typer.Exit(INTERRUPTED) from None
        console.end_live()
        for name, reason in list(done.bad.items())[:10]:
            console.say(f"left out: {escape(name)}: {reason}")
        if done.bad:
            console.say(f"{len(done.bad):,} images left out; all are listed in {to / 'pack.json'}")
        said = f"{done.images:,} images in {plural(len(done.shards), 'shard')}, {done.bytes / 2**20:,.1f} MiB: {to}"
        print(json.dumps(done.to_dict()) if as_json else printable(said))
        if done.reused >= len(done.shards):
            console.say("all shards were there already: nothing was written")
