"""Oxford-IIIT Pets: images/*.jpg, and lists `name class species breed` in annotations/."""

from pathlib import Path

from moco.text import escape
from moco.transfer.labelled import Item, LabelledFiles
from moco.transfer.readers.entries import AnnotationError, read_text
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.shared import ReadOptions, split_error

SPLITS = ("trainval", "test")


def recognises(path: Path) -> bool:
    return all((path / "annotations" / f"{split}.txt").is_file() for split in SPLITS)


def read(path: Path, options: ReadOptions) -> LabelledFiles:
    """The images of `trainval` or `test`, in the order of the list.

    The name of a class is taken from the names of its images. Classes are in the order of their numbers.

    Raises:
        AnnotationError: a line cannot be used; the message has the list and the line.
        DataError: there is no such split.
    """
    if options.split not in SPLITS:
        raise split_error(path, SPLITS, options.split)
    file = path / "annotations" / f"{options.split}.txt"
    images = ImageFiles([options.images or path / "images"])
    items: list[Item] = []
    names: dict[int, str] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        where = f"line {number}"
        if len(fields) != 4 or not all(field.isascii() and field.isdigit() for field in fields[1:]):
            raise AnnotationError(file, where, f"expected name, class, species and breed, got {line[:60]!r}")
        name, label = fields[0].rpartition("_")[0], int(fields[1])
        if not 1 <= label <= 1000 or names.setdefault(label, name) != name:
            raise AnnotationError(
                file, where, f"class {label} is {names.get(label, 'out of range')}, not {escape(name)}"
            )
        image = images.find(f"{fields[0]}.jpg")
        if image is None:
            raise AnnotationError(file, where, f"there is no {escape(fields[0])}.jpg in {images.describe()}")
        items.append(Item(image, fields[0], label - 1))
    if sorted(names) != list(range(1, len(names) + 1)):
        raise AnnotationError(file, "", f"the classes are not numbered from 1 without gaps: {sorted(names)[:50]}")
    return LabelledFiles(items, [names[label] for label in sorted(names)])
