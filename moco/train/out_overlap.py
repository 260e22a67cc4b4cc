"""Refuse an --out that is, contains or lies in a folder of the run's images."""

import os
from pathlib import Path

import numpy as np

from moco.data.remote.urls import is_url
from moco.data.sources.folder import Folder
from moco.text import escape
from moco.train.overwrite_run import find_existing_files
from moco.train.run_folder import RunError, RunFolder


def check_no_overlap(
    out: Path, images: object, *, eval_data: object = None, init: str | Path | None = None, overwrite: bool = False
) -> None:
    """Raise RunError if the run would write among its images, or remove the weights that it starts from.

    Args:
        images: the training images. Only images of folders and lists are checked; others are not files.
        eval_data: a folder or list of labelled images. The run may lie in it, but it must not lie in the run.
    """
    real = os.path.realpath(out)
    if isinstance(images, Folder) and images.local:
        _check_sources(out, real, images)
    if isinstance(eval_data, str | Path) and not is_url(eval_data) and is_in(os.path.realpath(eval_data), real):
        raise RunError(f"--eval-data {escape(str(eval_data))} is or lies in --out {out}: name another --out")
    if overwrite and init is not None and os.path.exists(init) and is_in(os.path.realpath(init), real):
        raise RunError(f"--init {escape(str(init))} lies in --out {out}, which --overwrite removes: name another --out")


def _check_sources(out: Path, real: str, images: Folder) -> None:
    for source in images.sources:
        root = os.path.realpath(source.root)
        if source.walked and (is_in(real, root) or is_in(root, real)):
            where = "is" if real == root else "lies in" if is_in(real, root) else "contains"
            raise RunError(
                f"--out {out} {where} the image folder {escape(source.root)}. Files of the run would count as images, "
                "or replace images. Name an --out outside of it (an existing run can be moved)"
            )
    if not os.path.isdir(real):
        return
    for folder in _folders_of(images):
        if is_in(os.path.realpath(folder), real):
            raise RunError(f"--out {out} contains images of the run, in {escape(folder)}: name another --out")
    for own in find_existing_files(RunFolder(out)):
        _check_is_no_image(own, images)


def _folders_of(images: Folder) -> set[str]:
    """The folders that the images lie in."""
    found = set[str]()
    first = 0
    for source, count in zip(images.sources, np.bincount(images.origin, minlength=len(images.sources)), strict=True):
        names, first = images.names.between(first, first + int(count)), first + int(count)
        inner = {name[: name.rfind("/") + 1] for name in names}
        found |= {os.path.join(source.root, path[len(source.prefix) :]) for path in inner}
    return found


def _check_is_no_image(own: Path, images: Folder) -> None:
    """Raise RunError if an image is the file `own`, for example by a link."""
    if not own.is_file():
        return
    status = own.stat()
    alike = np.flatnonzero((images.sizes == status.st_size) & (images.mtimes == status.st_mtime_ns))
    for index in alike.tolist():
        if os.path.samefile(images.path(index), own):
            raise RunError(
                f"the image {escape(images.names[index])} is the file {own}, which the run would replace: name another "
                "--out"
            )


def is_in(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it. Both are paths without links."""
    return os.path.commonpath([path, folder]) == folder
