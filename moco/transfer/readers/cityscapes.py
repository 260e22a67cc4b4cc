"""Cityscapes: images in leftImg8bit/SPLIT/CITY/, objects and classes of pixels in gtFine/SPLIT/CITY/.

In *_instanceIds.png the pixels of an object have the value 1000 * class + number. The pixels of a group, and of classes
without objects, have the value of the class.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image

from moco.data.decode.rgb import check_size
from moco.data.sources.images import DataError
from moco.transfer.masks import rle_of_runs
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.images import images_below
from moco.transfer.readers.shared import Annotation, ReadOptions, objects_of, split_error
from moco.transfer.scenes import Rle, Scene, SceneSet
from moco.transfer.semantic import IGNORED, SemanticScene, SemanticSet, table_of

OBJECT_NAMES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
SURFACES = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
            20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"}  # fmt: skip
VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)  # classes that are not evaluated
IMAGE = "_leftImg8bit.png"


def recognises(path: Path) -> bool:
    """A folder with leftImg8bit and gtFine."""
    return (path / "leftImg8bit").is_dir() and (path / "gtFine").is_dir()


def read(path: Path, options: ReadOptions) -> SceneSet:
    """The objects of a split (`train`, `val`), sorted by city and name. Groups are read as crowds.

    It reads every *_instanceIds.png: the 2,975 of `train` take a minute or two.

    Raises:
        AnnotationError: a file is missing or damaged, or has a value that Cityscapes does not have.
        DataError: there is no such split.
    """
    if options.classes not in (None, tuple(OBJECT_NAMES.values())):
        raise DataError(
            f"Cityscapes has the classes {', '.join(OBJECT_NAMES.values())}; expected {', '.join(options.classes)}"
        )
    scenes = [_scene(image, name, labels) for image, name, labels in _pairs(path, options, "instanceIds")]
    return SceneSet(tuple(OBJECT_NAMES.values()), tuple(scenes), tuple(OBJECT_NAMES))


def read_pixels(path: Path, options: ReadOptions) -> SemanticSet:
    """The 19 classes of a split, from *_labelIds.png. Raises as `read`."""
    names = {**SURFACES, **OBJECT_NAMES}
    classes = tuple(names[number] for number in sorted(names))
    if options.classes not in (None, classes):
        raise DataError(f"Cityscapes has the classes {', '.join(classes)}; expected {', '.join(options.classes)}")
    values = {number: place for place, number in enumerate(sorted(names))} | dict.fromkeys(VOID, IGNORED)
    scenes = [SemanticScene(image, name, labels) for image, name, labels in _pairs(path, options, "labelIds")]
    return SemanticSet(classes, tuple(scenes), table_of(values | {IGNORED: IGNORED}))


def _pairs(path: Path, options: ReadOptions, kind: str) -> list[tuple[Path, str, Path]]:
    """The image, the name and the annotation file of each image."""
    root = options.images or path / "leftImg8bit"
    splits = sorted(folder.name for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    if options.split not in splits:
        raise split_error(path, splits, options.split)
    pairs: list[tuple[Path, str, Path]] = []
    for image in images_below(root / options.split):
        if not image.name.endswith(IMAGE):
            continue
        name = image.name.removesuffix(IMAGE)
        labels = path / "gtFine" / options.split / image.parent.name / f"{name}_gtFine_{kind}.png"
        if not labels.is_file():
            raise AnnotationError(labels, name, "there is no such file; expected one for each image")
        pairs.append((image, name, labels))
    return pairs


def _scene(image: Path, name: str, labels: Path) -> Scene:
    """The objects of an image."""
    try:
        with Image.open(labels) as opened:
            check_size(*opened.size)
            ids = np.asarray(opened)
    except Exception as error:  # damaged files raise nearly everything
        raise AnnotationError(labels, name, f"cannot be read ({str(error)[:100]})") from error
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise AnnotationError(
            labels, name, f"expected one whole number for each pixel, got {ids.dtype} {list(ids.shape)}"
        )
    height, width = ids.shape
    runs = _Runs.of(ids.astype(np.int64))
    annotations: list[Annotation] = []
    for value in np.unique(runs.values).tolist():
        kind = value // 1000 if value >= 1000 else value
        if not (kind in OBJECT_NAMES or kind in SURFACES or kind in VOID or value == 255) or value < 0:
            raise AnnotationError(labels, name, f"has pixels of the value {value}, which Cityscapes does not have")
        if kind in OBJECT_NAMES:
            mask, box = runs.mask([value], height, width), runs.box(value, height)
            label = list(OBJECT_NAMES).index(kind)
            area = float(mask.runs[1::2].sum())
            annotations.append(Annotation(f"{name}, object {value}", box, label, area, crowd=value < 1000, mask=mask))
    ignored = runs.mask(VOID, height, width)
    return Scene(image, name, width, height, objects_of(annotations, masks=True), ignored=ignored)


class _Runs:
    """An image of numbers as runs of equal values, column by column."""

    def __init__(self, values: Int64[np.ndarray, "r"], starts: Int64[np.ndarray, "r"], total: int):
        self.values, self.starts = values, starts
        self.ends = np.append(starts[1:], total)

    @staticmethod
    def of(ids: Int64[np.ndarray, "H W"]) -> "_Runs":
        flat = ids.T.reshape(-1)
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        return _Runs(flat[starts], starts, flat.size)

    def mask(self, values: list[int] | tuple[int, ...], height: int, width: int) -> Rle:
        """The pixels that have one of the values."""
        chosen = np.isin(self.values, values)
        edges = np.column_stack([self.starts[chosen], self.ends[chosen]]).reshape(-1)
        lengths = np.diff(np.concatenate([[0], edges, [height * width]]))
        return rle_of_runs(height, width, lengths)

    def box(self, value: int, height: int) -> np.ndarray:
        """The box around the pixels of a value."""
        starts, last = self.starts[self.values == value], self.ends[self.values == value] - 1
        crossing = (starts // height != last // height).any()  # a run goes on in the next column
        top, bottom = (0, height) if crossing else ((starts % height).min(), (last % height).max() + 1)
        return np.array([starts.min() // height, top, last.max() // height + 1, bottom], dtype=np.float64)
