"""ImageNet's layout: a folder for each class, in a folder for each split."""

from pathlib import Path

from moco.data.sources.images import DataError
from moco.data.sources.open import open_folder
from moco.text import escape
from moco.transfer.labelled import Item, LabelledFiles
from moco.transfer.readers.shared import ReadOptions


def recognises(path: Path) -> bool:
    """Any folder that contains folders. So this format is tried last."""
    return path.is_dir() and any(entry.is_dir() for entry in path.iterdir())


def read(path: Path, options: ReadOptions) -> LabelledFiles:
    """The images of a split, sorted by path. Classes are the names of the folders, sorted, or `options.classes`.

    Raises:
        DataError: there is no such split, an image is outside of the class folders, or a class is not in
            `options.classes`.
    """
    folder = path / (options.split or "")
    if not folder.is_dir():
        raise DataError(f"{escape(str(path))} has no folder {escape(options.split or '')}")
    found = open_folder(folder)
    numbers, names = found.labelling.numbers, tuple(found.labelling.names)
    if not names or (numbers < 0).any():
        raise DataError(f"the images in {escape(str(folder))} have no classes: expected a folder for each class")
    classes = options.classes or names
    place = {name: index for index, name in enumerate(classes)}
    if other := [name for name in names if name not in place]:
        raise DataError(
            f"{escape(str(folder))} has the class {escape(other[0])}; expected {', '.join(map(escape, classes))}"
        )
    labels = [place[names[number]] for number in numbers.tolist()]
    items = [Item(Path(found.path(i)), found.names[i], label) for i, label in enumerate(labels)]
    return LabelledFiles(items, classes)
