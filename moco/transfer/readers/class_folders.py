"""A folder for each class, below a folder for each split: ImageNet's layout."""

from pathlib import Path

from moco.data.sources.folder import find_images
from moco.data.sources.images import DataError
from moco.text import shown
from moco.transfer.labelled import Item, LabelledFiles
from moco.transfer.readers.shared import ReadOptions


def recognises(path: Path) -> bool:
    """Any folder with folders. This is the last format to try."""
    return path.is_dir() and any(entry.is_dir() for entry in path.iterdir())


def read(path: Path, options: ReadOptions) -> LabelledFiles:
    """The images of a split, sorted by path. Classes are the names of the folders, sorted, or the given ones.

    Raises:
        DataError: no such split, an image outside of the class folders, a class that was not given.
    """
    folder = path / (options.split or "")
    if not folder.is_dir():
        raise DataError(f"{shown(str(path))} has no folder {shown(options.split or '')}")
    found = find_images(folder)
    numbers, names = found.labelling.numbers, tuple(found.labelling.names)
    if not names or (numbers < 0).any():
        raise DataError(f"the images in {shown(str(folder))} have no classes: expected a folder for each class")
    classes = options.classes or names
    place = {name: index for index, name in enumerate(classes)}
    if other := [name for name in names if name not in place]:
        raise DataError(f"{shown(str(folder))} has the class {shown(other[0])}, which is none of the given ones")
    labels = [place[names[number]] for number in numbers.tolist()]
    items = [Item(Path(found.path(i)), found.names[i], label) for i, label in enumerate(labels)]
    return LabelledFiles(items, classes)
