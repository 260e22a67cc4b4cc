"""Pascal VOC's semantic segmentation: palette images with the class of each pixel (255: ignored), or CVAT's colours."""

import re
from pathlib import Path

from moco.data.sources.images import DataError
from moco.text import escape
from moco.transfer.readers import sbd
from moco.transfer.readers.entries import AnnotationError, read_text
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.readers.voc import VOC_CLASSES, lists_of_split, read_split_list, years_of
from moco.transfer.semantic import IGNORED, Colour, SemanticScene, SemanticSet, table_of

FOLDER, AUGMENTED = "SegmentationClass", "SegmentationClassAug"
LISTS, TRAIN_AUG = "ImageSets/Segmentation", "trainaug"
LINE = re.compile(r"([^:#]+):(\d+),(\d+),(\d+):.*:.*")


def recognises(path: Path) -> bool:
    """A devkit, or one of its years, with lists for segmentation."""
    years = list(years_of(path).values()) or [path]
    return any((year / "ImageSets" / "Segmentation").is_dir() and (year / FOLDER).is_dir() for year in years)


def read(path: Path, options: ReadOptions) -> SemanticSet:
    """The pairs of a split of ImageSets/Segmentation, in the order of its lists.

    The classes are the background and VOC's 20, or those of labelmap.txt. The labels of the split `trainaug` (the
    paper's train_aug2012) are in SegmentationClassAug, those of the others in SegmentationClass. Without a list of that
    name, or without labels in these folders, `trainaug` is made of SBD, if that lies in `path`: see `_train_aug`.

    Raises:
        AnnotationError: an image or a label file is missing; the message has the list and the name.
        DataError: there is no such split.
    """
    scenes: list[SemanticScene] = []
    years = years_of(path).values()
    places = dict.fromkeys([path, *years, *(year.parent for year in years)])
    more = next((found for found in map(sbd.folder_in, places) if found), None)
    for file, root, names in _lists(path, options.split, more):
        augmented = "aug" in (options.split or "").lower()
        folder = AUGMENTED if augmented and (root / AUGMENTED).is_dir() else FOLDER
        others = more if augmented else None
        images = ImageFiles([options.images or root / "JPEGImages", *([others / "img"] if others else [])])
        labels = ImageFiles([root / folder, *([others / "cls"] if others else [])])
        for name in names:
            image, label = images.with_stem(name), labels.find(f"{name}.png") or labels.find(f"{name}.mat")
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


def _lists(path: Path, split: str | None, more: Path | None) -> list[tuple[Path, Path, list[str]]]:
    """The lists of a split: their files, the folder of the year, and the names."""
    if split in (TRAIN_AUG, f"2012_{TRAIN_AUG}") and more is not None:
        roots = [*years_of(path).values()] or [path]
        if not any((root / LISTS / f"{TRAIN_AUG}.txt").is_file() for root in roots):
            return _train_aug(years_of(path).get("2012", roots[-1]), more)
    return [(file, file.parents[2], read_split_list(file)) for file in lists_of_split(path, split, "Segmentation")]


def _train_aug(root: Path, more: Path) -> list[tuple[Path, Path, list[str]]]:
    """The paper's train_aug2012: VOC's train, then SBD's train and val without VOC's train and val.

    Images in VOC's train have VOC's labels, the others those of SBD: 10,582 images of VOC 2012.
    """
    train, held = (read_split_list(root / LISTS / f"{name}.txt") for name in ("train", "val"))
    lists, seen = [(root / LISTS / "train.txt", root, train)], {*train, *held}
    for file in sbd.lists_of_sbd_split(more, "train+val"):
        names = [name for name in read_split_list(file) if name not in seen]
        lists.append((file, root, names))
        seen |= {*names}
    return lists


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
