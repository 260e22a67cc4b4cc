"""moco check."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from moco.cli.errors import BAD_DATA, errors
from moco.cli.options import Images, Json, MaxBad


def check(
    data: Images,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Also look for nearly identical images.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also look for damage that JPEG decoders ignore.")] = False,
    hash_to: Annotated[
        Path | None,
        typer.Option("--hash", metavar="FILE", help="Write the SHA-256 of every image to FILE, as sha256sum does."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Compare with a FILE that --hash wrote earlier.")
    ] = None,
    max_bad: MaxBad = None,
    workers: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Threads that read images. [default: one per core]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find bad files, duplicates and odd images before a run.

    It decodes every image. Exit code 3: too many bad images, too few good ones, or
    changes since --hash.
    """
    with errors() as console:
        from moco.data.check.check import check as checked
        from moco.data.check.checksums import check_list_replaceable, digest_changes, read_digests, write_digests
        from moco.data.sources.open import open_image_files

        if hash_to is not None:
            check_list_replaceable(hash_to)
        before = None if against is None else read_digests(against)
        images = open_image_files(data)
        report = checked(
            images, near_duplicates=duplicates, deep=deep, max_bad=max_bad,
            workers=(os.cpu_count() or 1) if workers is None else workers,
            progress=lambda count: console.live(f"{count:,} of {len(images):,} images read"),
        )  # fmt: skip
        digests = {name: one.digest for name, one in zip(report.names, report.inspections, strict=True) if one.digest}
        if before is not None:
            report = dataclasses.replace(report, changed=digest_changes(before, digests))
        if hash_to is not None:
            write_digests(digests, hash_to)
        console.say(f"{len(images):,} of {len(images):,} images read")
        print(json.dumps(report.to_dict()) if as_json else report)
    if report.unfit:
        raise typer.Exit(BAD_DATA)
