"""Folders of small images and lists of them, for the tests of sources."""

import functools
import io
from pathlib import Path

from PIL import Image

from moco.data.sources.folder import Folder, find_images


@functools.cache
def png() -> bytes:
    """A PNG file of 3 x 2 pixels of the colour (1, 2, 3)."""
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(file, "PNG")
    return file.getvalue()


def tree(root: Path, *names: str) -> Path:
    """A PNG file at each of `names` below `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    return root


def names_in(*sources: Path) -> list[str]:
    return list(find_images(sources).names)


def images_of_list(folder: Path, name: str, text: str) -> Folder:
    (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    return find_images(folder / name)
