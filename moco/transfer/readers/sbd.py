"""SBD, the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011): classes of VOC for more of its images.

`cls/NAME.mat` has the class of each pixel (GTcls.Segmentation), `img/NAME.jpg` the image; train.txt and val.txt list
the names. The authors' archive has them in benchmark_RELEASE/dataset. VOC's own lists and labels are not part of it.
"""

from pathlib import Path

from moco.data.sources.images import DataError
from moco.text import escape
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.shared import ReadOptions, split_error
from moco.transfer.readers.voc import VOC_CLASSES, read_split_list
from moco.transfer.semantic import IGNORED, SemanticScene, SemanticSet, table_of

PLACES = ("", "dataset", "benchmark_RELEASE/dataset", "SBD", "SBD/dataset", "SBD/benchmark_RELEASE/dataset")
SPLITS = ("train", "val")


def recognises(path: Path) -> bool:
    return folder_in(path) is not None


def folder_in(path: Path) -> Path | None:
    """The folder with `cls` and train.txt, at `path` or in one of PLACES in it."""
    folders = (path / place for place in PLACES)
    return next((one for one in folders if (one / "cls").is_dir() and (one / "train.txt").is_file()), None)


def read(path: Path, options: ReadOptions) -> SemanticSet:
    """The images of `train` or `val`, or of both (`train+val`), in the order of the lists. Classes: VOC's 21.

    Raises:
        AnnotationError: an image or a label file is missing; the message has the list and the name.
        DataError: there is no such split, or other classes are expected.
    """
    folder, classes = folder_in(path), ("background", *VOC_CLASSES)
    if folder is None:
        raise DataError(f"{escape(str(path))} has no folder cls/ beside a train.txt, as SBD has")
    if options.classes not in (None, classes):
        raise DataError(
            f"SBD has the background and the 20 classes of VOC; expected {', '.join(options.classes or ())}"
        )
    images, labels = ImageFiles([options.images or folder / "img"]), ImageFiles([folder / "cls"])
    scenes: list[SemanticScene] = []
    for file in lists_of_sbd_split(folder, options.split):
        for name in read_split_list(file):
            image, label = images.with_stem(name), labels.find(f"{name}.mat")
            if image is None or label is None:
                raise AnnotationError(
                    file, name, f"there is no such file in {(images if image is None else labels).describe()}"
                )
            scenes.append(SemanticScene(image, name, label))
    values = {number: number for number in range(len(classes))} | {IGNORED: IGNORED}
    return SemanticSet(classes, tuple(scenes), table_of(values))


def lists_of_sbd_split(folder: Path, split: str | None) -> list[Path]:
    """The lists of a split, or of several joined with +. Raises DataError with the splits that exist."""
    offered = [name for name in SPLITS if (folder / f"{name}.txt").is_file()]
    chosen = (split or "").split("+")
    if not {*chosen} <= {*offered}:
        raise split_error(folder, offered, split, joined=True)
    return [folder / f"{name}.txt" for name in chosen]
