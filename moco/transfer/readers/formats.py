"""The formats that annotations may have. A new one is a file with `recognises` and `read`, and an entry here."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from moco.data.sources.images import DataError
from moco.text import shown
from moco.transfer.readers import coco, labelme, voc, yolo
from moco.transfer.readers.collect import ReadOptions
from moco.transfer.scenes import SceneSet


class Format(NamedTuple):
    """How annotated objects are stored."""

    layout: str  # what a path of this format looks like, for messages
    recognises: Callable[[Path], bool]  # quick: lists folders and reads the beginnings of files
    read: Callable[[Path, ReadOptions], SceneSet]


FORMATS: dict[str, Format] = {  # the first that recognises a path reads it
    "voc": Format("VOCdevkit/VOC2007/{Annotations,ImageSets,JPEGImages}, or XML files", voc.recognises, voc.read),
    "labelme": Format("a folder of LabelMe's JSON files", labelme.recognises, labelme.read),
    "yolo": Format("data.yaml, classes.txt or obj.names, with a text file for each image", yolo.recognises, yolo.read),
    "coco": Format("a JSON file with images, annotations and categories", coco.recognises, coco.read),
}


def read_scenes(path: Path, options: ReadOptions | None = None, *, format: str | None = None) -> SceneSet:
    """The annotated images at `path`, in the named format or the one that it looks like.

    Nothing is extracted, unpickled or downloaded.

    Raises:
        AnnotationError: an annotation that cannot be used, by file and id.
        DataError: no such path, no known format, no images.
    """
    if not path.exists():
        raise DataError(f"{shown(str(path))} does not exist: expected a folder or file of annotations")
    chosen = recognise(path) if format is None else format
    if chosen not in FORMATS:
        raise DataError(f"no format {shown(chosen)}: choose from {', '.join(FORMATS)}")
    scenes = FORMATS[chosen].read(path, options or ReadOptions())
    if not scenes.scenes:
        raise DataError(f"{shown(str(path))} names no images (read as {chosen})")
    return scenes


def recognise(path: Path) -> str:
    """The format of what is at `path`. Raises DataError, which lists the formats."""
    for name, known in FORMATS.items():
        if known.recognises(path):
            return name
    layouts = "\n".join(f"  {name}: {known.layout}" for name, known in FORMATS.items())
    raise DataError(f"{shown(str(path))} is in no format known here, or --format must name it:\n{layouts}")
