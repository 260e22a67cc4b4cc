"""Find the image files that annotations name."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from moco.data.decode.decode import EXTENSIONS, BadImage, reason_of
from moco.data.decode.rgb import orientation
from moco.data.sources.images import DataError
from moco.text import escape


class ImageFiles:
    """Finds files in some folders by their names in annotations. Each folder is listed only once.

    Tools write paths of other machines (`C:\\data\\cat.jpg`, `../../media/cat.jpg`). The longest end of such a path
    that exists in one of the folders is used. No file outside of the folders is ever opened.
    """

    def __init__(self, folders: Sequence[Path]):
        self.folders = list(dict.fromkeys(folders))
        self._names: dict[Path, frozenset[str]] = {}

    def find(self, name: str) -> Path | None:
        """The file with that name; None if there is none."""
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
        for first in range(len(parts)):
            for folder in self.folders:
                path = folder.joinpath(*parts[first:])
                if path.name in self._list_folder(path.parent):
                    return path
        return None

    def with_stem(self, stem: str) -> Path | None:
        """The image file with that name and any extension; None if there is none."""
        parent, _, last = stem.rpartition("/")
        for folder in self.folders:
            listed = self._list_folder(folder / parent)
            for ending in EXTENSIONS:
                for name in (last + ending, last + ending.upper()):
                    if name in listed:
                        return folder / parent / name
        return None

    def _list_folder(self, folder: Path) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except (OSError, ValueError):  # no such folder; a name with a null character
                self._names[folder] = frozenset()
        return self._names[folder]

    def describe(self) -> str:
        return ", ".join(escape(str(folder)) for folder in self.folders)


def images_below(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by path. Links to folders are not followed."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if is_image(name)]
    return sorted(found, key=os.fsencode)


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is decoded (upright), from its header. Raises DataError."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if orientation(image) >= 5 else (width, height)
    except Exception as error:  # damaged files raise nearly everything
        raise DataError(str(BadImage(str(path), reason_of(error)))) from error
