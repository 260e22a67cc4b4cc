"""Walk through the directories of a folder: which image files they have, and what is skipped."""

import os
import stat
from typing import NamedTuple

from moco.data.decode.decode import EXTENSIONS
from moco.data.sources.names import Names, pack_names, with_prefix
from moco.data.sources.skipped import Skipped, is_system_folder

_ENDINGS = frozenset(EXTENSIONS)


class InDirectory(NamedTuple):
    """The images in a directory."""

    path: str  # below the root, with a slash at its end
    names: Names  # their paths below the root, sorted by their bytes


def walk(root: str, skipped: Skipped) -> list[InDirectory]:
    """The image files below `root`. A directory that is also linked is entered once, under its own name.

    So links to directories are followed only after all real directories.
    """
    found, entered = list[InDirectory](), {os.path.realpath(root)}
    directories, links = [""], list[str]()  # paths below root, with a slash at the end; both are stacks
    while directories or links:
        here = directories.pop() if directories else links.pop()
        real = os.path.realpath(os.path.join(root, here))
        if here and real in entered:
            skipped.add(here.rstrip("/"), "directory that was already entered")
            continue
        entered.add(real)
        try:
            with os.scandir(os.path.join(root, here)) as entries:
                images, others = list[str](), list[os.DirEntry[str]]()
                for entry in entries:
                    if _is_plain_image(entry):
                        images.append(entry.name)
                    else:
                        others.append(entry)
        except OSError as error:
            skipped.add(here, f"directory that cannot be read ({(error.strerror or str(error)).lower()})")
            continue
        new, new_links = _sort_others(others, here, images, skipped)
        if images:
            found.append(InDirectory(here, with_prefix(here, pack_names(sorted(images, key=os.fsencode)))))
        directories += new
        links[:0] = new_links  # a stack: the first link found is followed first
    return found


def _sort_others(
    others: list[os.DirEntry[str]], here: str, images: list[str], skipped: Skipped
) -> tuple[list[str], list[str]]:
    """Add images to `images`, others to `skipped`. Returns directories, and links to them, in reverse order."""
    directories, links = list[str](), list[str]()
    others.sort(key=lambda entry: os.fsencode(entry.name), reverse=True)
    for entry in others:
        status = _look_at(entry)
        if isinstance(status, str):
            skipped.add(here + entry.name, status)
        elif stat.S_ISREG(status.st_mode):
            images.append(entry.name)
        else:
            (links if entry.is_symlink() else directories).append(f"{here}{entry.name}/")
    return directories, links


def _is_plain_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is clearly an image file, as nearly all are. If not, `_look_at` must decide."""
    name = entry.name
    return name[name.rfind(".") :].lower() in _ENDINGS and name[0] != "." and entry.is_file(follow_symlinks=False)


def _look_at(entry: os.DirEntry[str]) -> os.stat_result | str:
    """The status of a directory or image file, or the reason why it is skipped."""
    if entry.name.startswith("."):
        return "hidden"
    try:
        status = entry.stat()
    except OSError:
        return "broken link" if entry.is_symlink() else "file that cannot be looked at"
    if stat.S_ISDIR(status.st_mode):
        return "system folder" if is_system_folder(entry.name) else status
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    extension = os.path.splitext(entry.name)[1].lower()
    if extension not in EXTENSIONS:
        return f"{extension[:20]} file" if extension else "file without an ending"
    return status
