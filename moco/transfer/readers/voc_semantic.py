"""Pascal VOC's semantic segmentation: palette images with the class of each pixel (255: ignored), or CVAT's colours."""

import re
from pathlib import Path

from moco.data.sources.images import DataError
from moco.text import escape
from moco.transfer.readers.entries import AnnotationError, read_text
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.readers.voc import VOC_CLASSES, lists_of_split, read_split_list, years_of
from moco.transfer.semantic import IGNORED, Colour, SemanticScene, SemanticSet, table_of

FOLDER, AUGMENTED = "SegmentationClass", "SegmentationClassAug"
LINE = re.compile(r"([^:#]+):(\d+),(\d+),(\d+):.*:.*")


def recognises(path: Path) -> bool:
    """A devkit, or one of its years, with lists for segmentation."""
    years = list(years_of(path).values()) or [path]
    return any((year / "ImageSets" / "Segmentation").is_dir() and (year / FOLDER).is_dir() for year in years)


def read(path: Path, options: ReadOptions) -> SemanticSet:
    """The pairs of a split of ImageSets/Segmentation, in the order of its lists.

    The classes are the background and VOC's 20, or those of labelmap.txt. The labels of the split `trainaug` (the
    paper's train_aug2012) are in SegmentationClassAug, those of the others in SegmentationClass.

    Raises:
        AnnotationError: an image or a label file is missing; the message has the list and the name.
        DataError: there is no such split.
    """
    scenes: list[SemanticScene] = []
    for file in lists_of_split(path, options.split, "Segmentation"):
        root = file.parents[2]
        augmented = "aug" in file.stem.lower() and (root / AUGMENTED).is_dir()
        images = ImageFiles([options.images or root / "JPEGImages"])
        labels = ImageFiles([root / (AUGMENTED if augmented else FOLDER)])
        for name in read_split_list(file):
            image, label = images.with_stem(name), labels.find(f"{name}.png")
            if image is None or label is None:
                place = images if image is None else labels
                raise AnnotationError(file, name, f"there is no such file in {place.describe()}")
            scenes.append(SemanticScene(image, name, label))
    classes, colours = _label_map(path) or (("background", *VOC_CLASSES), palette(len(VOC_CLASSES) + 1))
    if options.classes not in (None, classes):
        raise DataError(
            f"{escape(str(path))} has the classes {', '.join(classes)}; expected {', '.join(options.classes)}"
        )
    values = {number: number for number in range(len(classes))} | {IGNORED: IGNORED}
    return SemanticSet(classes, tuple(scenes), table_of(values), {**colours, (224, 224, 192): IGNORED})


def palette(count: int) -> dict[Colour, int]:
    """VOC's colours: bit j of a class is bit 7 - j // 3 of the channel j % 3."""
    colours: dict[Colour, int] = {}
    for value in range(count):
        channels = [sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        colours[(channels[0], channels[1], channels[2])] = value
    return colours


def _label_map(path: Path) -> tuple[tuple[str, ...], dict[Colour, int]] | None:
    """The class names and colours of CVAT's labelmap.txt; None if there is no such file."""
    file = path / "labelmap.txt"
    if not file.is_file():
        return None
    names: list[str] = []
    colours: dict[Colour, int] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None or max(map(int, match.groups()[1:4])) > 255:
            raise AnnotationError(
                file, f"line {number}", f"expected name:red,green,blue:parts:actions, got {line[:60]!r}"
            )
        colours[(int(match[2]), int(match[3]), int(match[4]))] = len(names)
        names.append(match[1])
    if not 2 <= len(names) <= IGNORED:
        raise AnnotationError(file, "", f"names {len(names)} classes; expected 2 to {IGNORED}")
    return tuple(names), colours
