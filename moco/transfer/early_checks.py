"""Check the images before the first run of `moco transfer` writes anything."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from moco.data.sources.folder import Folder
from moco.data.sources.images import DataError
from moco.recipe_error import RecipeError
from moco.text import escape
from moco.train.out_overlap import check_no_overlap, is_in
from moco.transfer.readers.images import size_of
from moco.transfer.scenes import SceneSet
from moco.transfer.semantic import SemanticSet

READERS = 16  # threads that read headers: a network disk answers many at a time


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
                    f"--out {escape(str(out))} has images in it, in {escape(str(folder))}: name another --out"
                )
        sizes = [(scene.path, getattr(scene, "width", None), getattr(scene, "height", None)) for scene in part.scenes]
        with ThreadPoolExecutor(READERS) as pool:
            for _ in pool.map(lambda one: _check_header(*one), sizes):
                pass


def _check_header(path: Path, width: int | None, height: int | None) -> None:
    if not path.is_file():
        kind = "is not a file" if os.path.lexists(path) else "does not exist"
        raise DataError(f"the annotated image {escape(str(path))} {kind}: put it back, or remove its annotations")
    size = size_of(path)
    if width is not None and size != (width, height):
        raise DataError(
            f"{escape(str(path))} has {size[0]} x {size[1]} pixels, and its annotations are for {width} x {height}: "
            "annotate this image, or put the annotated one back"
        )
