"""Two folders with files of the same names: images, and PNG files whose pixels have the number of a class."""

from pathlib import Path

from moco.data.sources.images import DataError
from moco.text import escape
from moco.transfer.readers.entries import AnnotationError, read_text
from moco.transfer.readers.images import ImageFiles, images_below
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.semantic import IGNORED, SemanticScene, SemanticSet, table_of

LABELS = ("masks", "labels", "annotations")


def recognises(path: Path) -> bool:
    """A folder with `images`, and PNG files in one of LABELS."""
    folder = _label_folder(path)
    return (path / "images").is_dir() and folder is not None and next(folder.rglob("*.png"), None) is not None


def read(path: Path, options: ReadOptions) -> SemanticSet:
    """The pairs in `images` and `masks` (or in `images/SPLIT` and `masks/SPLIT`), sorted by path.

    The names of the classes are the lines of classes.txt, from value 0; the value 255 is ignored.

    Raises:
        AnnotationError: an image has no mask.
        DataError: there is no such split, or no classes.txt.
    """
    folder = _label_folder(path)
    classes = options.classes or _classes(path)
    images = path / "images" / (options.split or "")
    if folder is None or not images.is_dir():
        raise DataError(f"{escape(str(path))}: expected the folders {escape(str(images))} and masks beside images")
    masks = ImageFiles([folder / (options.split or "")])
    scenes: list[SemanticScene] = []
    for image in images_below(images):
        name = image.relative_to(images).with_suffix("").as_posix()
        label = masks.find(f"{name}.png")
        if label is None:
            raise AnnotationError(image, name, f"there is no {escape(name)}.png in {masks.describe()}")
        scenes.append(SemanticScene(image, name, label))
    values = {number: number for number in range(len(classes))} | {IGNORED: IGNORED}
    return SemanticSet(classes, tuple(scenes), table_of(values))


def _label_folder(path: Path) -> Path | None:
    return next((path / name for name in LABELS if (path / name).is_dir()), None)


def _classes(path: Path) -> tuple[str, ...]:
    file = path / "classes.txt"
    if not file.is_file():
        raise DataError(f"expected the names of the classes, one in each line, in {escape(str(file))}")
    names = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
    if not 2 <= len(names) <= IGNORED or len({*names}) < len(names):
        raise AnnotationError(file, "", f"expected 2 to {IGNORED} different names of classes, got {len(names)}")
    return names
