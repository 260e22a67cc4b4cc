"""The formats of annotations. To add one, write a file with `recognises` and `read`, and an entry here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from moco.data.sources.images import DataError, Images
from moco.text import escape
from moco.transfer.paper_tasks import check_format
from moco.transfer.readers import (
    cifar,
    cityscapes,
    class_folders,
    coco,
    densepose,
    flowers,
    inaturalist,
    labelme,
    lvis,
    paired_folders,
    pets,
    sbd,
    voc,
    voc_semantic,
    yolo,
)
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.scenes import SceneSet
from moco.transfer.semantic import SemanticSet

T = TypeVar("T")


@dataclass(frozen=True)
class Format(Generic[T]):
    """One format of annotations."""

    layout: str  # a description of its files, for messages
    recognises: Callable[[Path], bool]  # fast: lists folders and reads the beginnings of files
    read: Callable[[Path, ReadOptions], T]


OBJECT_FORMATS: dict[str, Format[SceneSet]] = {  # the first that recognises a path reads it
    "voc": Format("VOCdevkit/VOC2007/{Annotations,ImageSets,JPEGImages}, or XML files", voc.recognises, voc.read),
    "cityscapes": Format("leftImg8bit/ and gtFine/", cityscapes.recognises, cityscapes.read),
    "labelme": Format("a folder of LabelMe's JSON files", labelme.recognises, labelme.read),
    "yolo": Format("data.yaml, classes.txt or obj.names, with a text file for each image", yolo.recognises, yolo.read),
    "lvis": Format("LVIS' JSON, v0.5 or v1", lvis.recognises, lvis.read),
    "densepose": Format("COCO JSON with dp_I, dp_U, ... (DensePose-COCO)", densepose.recognises, densepose.read),
    "coco": Format("a JSON file with images, annotations and categories", coco.recognises, coco.read),
}
PIXEL_FORMATS: dict[str, Format[SemanticSet]] = {
    "voc": Format("VOCdevkit/VOC2012/{ImageSets,SegmentationClass}", voc_semantic.recognises, voc_semantic.read),
    "sbd": Format("cls/*.mat, img/, train.txt and val.txt (SBD)", sbd.recognises, sbd.read),
    "cityscapes": Format("leftImg8bit/ and gtFine/", cityscapes.recognises, cityscapes.read_pixels),
    "folders": Format("images/, masks/ and classes.txt", paired_folders.recognises, paired_folders.read),
}

CLASS_FORMATS: dict[str, Format[Images]] = {
    "cifar": Format("cifar-10-batches-bin/, -py/, cifar-100-binary/ or -python/", cifar.recognises, cifar.read),
    "flowers": Format("jpg/, imagelabels.mat and setid.mat", flowers.recognises, flowers.read),
    "pets": Format("images/ and annotations/{trainval,test}.txt", pets.recognises, pets.read),
    "inaturalist": Format("train2018.json, val2018.json and the images", inaturalist.recognises, inaturalist.read),
    "folders": Format("a folder for each class", class_folders.recognises, class_folders.read),
}


def read_scenes(path: Path, options: ReadOptions | None = None, *, format: str | None = None) -> SceneSet:
    """The images with annotated objects at `path`. Nothing is extracted, unpickled or downloaded.

    Args:
        format: a name in OBJECTS; None: the first one that recognises the path.

    Raises:
        AnnotationError: an annotation cannot be used; the message has its file and id.
        DataError: the path does not exist, has no known format, or no images.
    """
    scenes = _read(path, options, format, OBJECT_FORMATS)
    if not scenes.scenes:
        raise DataError(f"{escape(str(path))} has no images")
    return scenes


def read_semantic(path: Path, options: ReadOptions | None = None, *, format: str | None = None) -> SemanticSet:
    """The images with a class for each pixel at `path`, in a format of PIXEL_FORMATS. Raises as `read_scenes`."""
    scenes = _read(path, options, format, PIXEL_FORMATS)
    if not scenes.scenes:
        raise DataError(f"{escape(str(path))} has no images")
    return scenes


def read_classes(path: Path, options: ReadOptions | None = None, *, format: str | None = None) -> Images:
    """The images with one class each at `path`, in a format of CLASS_FORMATS. Raises as `read_scenes`."""
    images = _read(path, options, format, CLASS_FORMATS)
    if not len(images):
        raise DataError(f"{escape(str(path))} has no images")
    return images


def _read(path: Path, options: ReadOptions | None, format: str | None, formats: dict[str, Format[T]]) -> T:
    if not path.exists():
        raise DataError(f"{escape(str(path))} does not exist: expected a folder or file of annotations")
    chosen = recognise(path, formats) if format is None else format
    check_format(chosen, formats)
    return formats[chosen].read(path, options or ReadOptions())


def recognise(path: Path, formats: Mapping[str, Format[Any]]) -> str:
    """The name of the format at `path`. Raises DataError with a list of the formats."""
    for name, known in formats.items():
        if known.recognises(path):
            return name
    layouts = "\n".join(f"  {name}: {known.layout}" for name, known in formats.items())
    raise DataError(f"{escape(str(path))} has none of these formats; if it does, name it with --format:\n{layouts}")
