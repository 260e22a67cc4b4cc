"""Checks of --out and of the images before the first run of `moco transfer` writes anything."""

import os
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from moco.data.sources.folder import Folder
from moco.data.sources.images import DataError
from moco.recipe_error import RecipeError
from moco.text import shown
from moco.train.out_overlap import check_no_overlap, is_in
from moco.transfer.readers.images import size_of
from moco.transfer.scenes import SceneSet
from moco.transfer.semantic import SemanticSet

READERS = 16  # threads that read headers: a network disk answers many at a time


def check_folders(out: Path, names: Collection[str]) -> None:
    """Raise RecipeError if `out`, or the folder of some weights in it, is a link or a file."""
    for folder in (out, *(out / name for name in names)):
        if folder.is_symlink() or (os.path.lexists(folder) and not folder.is_dir()):
            kind = "link" if folder.is_symlink() else "file"
            raise RecipeError(
                f"{shown(str(folder))} is a {kind}, and moco transfer needs a folder there, not a link to one: remove "
                "it, or name another --out"
            )


def check_apart(out: Path, data: Path, test: Path | None, init: Mapping[str, str | Path], *, overwrite: bool) -> None:
    """Raise RecipeError if `out` and the data overlap, or if --overwrite would remove weights in `out`."""
    real = os.path.realpath(out)
    for option, path in (("--data", data), ("--test", test)):
        if path is None or not path.exists():
            continue
        source = os.path.realpath(path)
        if is_in(source, real) or (path.is_dir() and is_in(real, source)):
            where = "is" if real == source else "lies in" if is_in(real, source) else "contains"
            raise RecipeError(
                f"--out {shown(str(out))} {where} {option} {shown(str(path))}, so runs would write into it: name "
                "an --out outside of it"
            )
    for name, weights in init.items():
        if overwrite and os.path.exists(weights) and is_in(os.path.realpath(weights), real):
            raise RecipeError(
                f"--init {name}={shown(str(weights))} lies in --out {shown(str(out))}, which --overwrite replaces: "
                "name another --out"
            )


def check_images(out: Path, annotated: Iterable[object]) -> None:
    """Raise if `out` contains images, or if an image does not exist, has no header or another size than annotated.

    Raises:
        RecipeError: `out` and the images overlap. DataError: an image cannot be used.
    """
    real = os.path.realpath(out)
    for part in annotated:
        if isinstance(part, Folder):
            check_no_overlap(out, part)
        if not isinstance(part, SceneSet | SemanticSet):
            continue
        for folder in sorted({scene.path.parent for scene in part.scenes}):
            if is_in(os.path.realpath(folder), real):
                raise RecipeError(
                    f"--out {shown(str(out))} has images in it, in {shown(str(folder))}: name another --out"
                )
        sizes = [(scene.path, getattr(scene, "width", None), getattr(scene, "height", None)) for scene in part.scenes]
        with ThreadPoolExecutor(READERS) as pool:
            for _ in pool.map(lambda one: _check_header(*one), sizes):
                pass


def _check_header(path: Path, width: int | None, height: int | None) -> None:
    if not path.is_file():
        kind = "is not a file" if os.path.lexists(path) else "does not exist"
        raise DataError(f"the annotated image {shown(str(path))} {kind}: put it back, or remove its annotations")
    size = size_of(path)
    if width is not None and size != (width, height):
        raise DataError(
            f"{shown(str(path))} has {size[0]} x {size[1]} pixels, and its annotations are for {width} x {height}: "
            "annotate this image, or put the annotated one back"
        )
