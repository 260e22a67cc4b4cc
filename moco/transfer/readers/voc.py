"""Pascal VOC: an XML file for each image, and lists of the images of each split in ImageSets/.

In the XML files the first pixel is 1, and pixel xmax belongs to the box. So a box from xmin to xmax is read as xmin - 1
to xmax.
"""

import math
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple, NoReturn
from xml.parsers import expat

import numpy as np

from moco.data.sources.images import DataError
from moco.text import escape
from moco.transfer.readers.entries import LARGEST, AnnotationError, read_bytes, read_text
from moco.transfer.readers.images import ImageFiles
from moco.transfer.readers.shared import (
    Annotation,
    ReadOptions,
    SkippedAnnotations,
    objects_of,
    split_error,
    with_class,
)
from moco.transfer.scenes import Scene, SceneSet

VOC_CLASSES = (  # of the challenges 2007 to 2012
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
YEAR = re.compile(r"VOC(\d{4})")


def recognises(path: Path) -> bool:
    """A devkit, one of its years, or any folder with `Annotations/*.xml` or XML files."""
    return bool(years_of(path)) or any(_xml_files(folder) for folder in _annotation_folders(path))


def read(path: Path, options: ReadOptions) -> SceneSet:
    """The scenes of a split, in the order of its lists.

    `options.split`: the name of a list in ImageSets/Main (`trainval`: of all years that have it), that of one year
    (`2007_test`), or several (`2007_trainval+2012_trainval`). Without ImageSets, all XML files are read, sorted by
    name. The classes are VOC's 20 if a folder is named after a year, otherwise the names that occur, sorted.

    Raises:
        AnnotationError: an object cannot be used; the message has its file and number.
        DataError: there is no such split.
    """
    skipped = SkippedAnnotations(options.skip_bad)
    drafts = [_draft(file, _image_of(file, options.images), skipped) for file in _files_of_split(path, options.split)]
    names = {name for draft in drafts for name, _ in draft.objects}
    classes = options.classes or (VOC_CLASSES if years_of(path) else tuple(sorted(names)))
    place = {name: index for index, name in enumerate(classes)}
    scenes: list[Scene] = []
    for draft in drafts:
        labelled = [
            skipped.attempt(lambda name=name, one=one, draft=draft: with_class(one, name, place, draft.file))
            for name, one in draft.objects
        ]
        objects = objects_of([one for one in labelled if one is not None])
        scenes.append(Scene(draft.image, draft.file.stem, draft.width, draft.height, objects))
    return SceneSet(classes, tuple(scenes), tuple(range(1, len(classes) + 1)), skipped=tuple(skipped.reasons))


def years_of(path: Path) -> dict[str, Path]:
    """The folders of the years (`VOC2007`) by year: `path` itself, or in it or in `path`/VOCdevkit."""
    for parent in (path, path / "VOCdevkit"):
        found = {match[1]: parent / name for name in _names(parent) if (match := YEAR.fullmatch(name))}
        if found:
            return found
    match = YEAR.fullmatch(path.name)
    return {match[1]: path} if match and (path / "ImageSets").is_dir() else {}


def lists_of_split(path: Path, split: str | None, task: str) -> list[Path]:
    """The lists ImageSets/`task`/*.txt of a split. Raises DataError with the splits that exist."""
    years = years_of(path) or {"": path}
    lists = {
        (year, file.stem): file
        for year in sorted(years)
        for file in sorted((years[year] / "ImageSets" / task).glob("*.txt"))
    }  # fmt: skip
    offered = [f"{year}_{name}" if year else name for year, name in lists if "_" not in name]
    if split is None:
        plain = [file for (_, name), file in lists.items() if "_" not in name]
        if len(plain) == 1:
            return plain
        raise split_error(path, offered, split, joined=True)
    chosen: list[Path] = []
    for part in split.split("+"):
        year, _, name = part.rpartition("_")
        found = [file for (y, n), file in lists.items() if n == part or (y, n) == (year, name)]
        if not found:
            raise split_error(path, offered, part, joined=True)
        chosen += found
    return chosen


def read_split_list(file: Path) -> list[str]:
    """The names of images in a list. Raises AnnotationError."""
    names: dict[str, int] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        fields = line.split()
        if len(fields) > 1:
            raise AnnotationError(
                file, f"line {number}", "expected one image name per line; the list of a single class is not a split"
            )
        if fields and (fields[0].startswith("/") or {"..", "."} & {*fields[0].replace("\\", "/").split("/")}):
            raise AnnotationError(file, f"line {number}", f"{escape(fields[0])} is a path outside of the folder")
        if fields and fields[0] in names:
            raise AnnotationError(file, f"line {number}", f"image {fields[0]} is in line {names[fields[0]]} already")
        names |= dict.fromkeys(fields, number)
    return list(names)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder), key=os.fsencode)
    except OSError:
        return []


def _annotation_folders(path: Path) -> list[Path]:
    return [path / "Annotations", path / "annotations", path]


def _xml_files(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder) if name.lower().endswith(".xml") and not name.startswith(".")]


def _files_of_split(path: Path, split: str | None) -> list[Path]:
    """The XML files of a split."""
    if years_of(path) or (path / "ImageSets" / "Main").is_dir():
        return [
            file.parents[2] / "Annotations" / f"{name}.xml"
            for file in lists_of_split(path, split, "Main")
            for name in read_split_list(file)
        ]
    if split is not None:
        raise DataError(
            f"{escape(str(path))} has no ImageSets/Main and so no split {escape(split)}: leave the split out"
        )
    files = next((files for folder in _annotation_folders(path) if (files := _xml_files(folder))), [])
    if not files:
        raise DataError(f"{escape(str(path))} has no XML files of Pascal VOC")
    return files


def _image_of(file: Path, folder: Path | None) -> Path:
    root = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    places = ImageFiles([folder] if folder else [root / "JPEGImages", root / "images", root, file.parent])
    image = places.with_stem(file.stem)
    if image is None:
        raise AnnotationError(file, "", f"there is no image {file.stem}.jpg, in {places.describe()}")
    return image


class _Draft(NamedTuple):
    """The content of an XML file, before its classes are numbered."""

    file: Path
    image: Path
    width: int | None
    height: int | None
    objects: list[tuple[str, Annotation]]


class _Element:
    """One element of an XML file. Its texts are read as numbers or flags, or raise AnnotationError."""

    def __init__(self, element: ElementTree.Element, file: Path, name: str):
        self.element, self.file, self.name = element, file, name

    def fail(self, problem: str) -> NoReturn:
        raise AnnotationError(self.file, self.name, problem)

    def text(self, tag: str) -> str:
        text = (self.element.findtext(tag) or "").strip()
        if not text:
            self.fail(f"has no <{tag}>")
        return text

    def number(self, tag: str) -> float:
        text = self.text(tag)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= LARGEST:
            self.fail(f"<{tag}> must be a number, got {text[:40]!r}")
        return value

    def flag(self, tag: str) -> bool:
        text = (self.element.findtext(tag) or "0").strip()
        if text.lower() not in ("0", "1", "true", "false", "unspecified"):
            self.fail(f"<{tag}> must be 0 or 1, got {text[:40]!r}")
        return text.lower() in ("1", "true")


def _parse(file: Path) -> ElementTree.Element:
    """The root of an XML file. A document type declaration, which could define entities, is an error."""
    data = read_bytes(file)

    def refuse(*_: object) -> NoReturn:
        raise AnnotationError(file, "", "has a document type declaration, which annotations do not have")

    try:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = refuse
        parser.Parse(data, True)
        root = ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(file, "", f"not valid XML ({error})") from error
    if root.tag != "annotation":
        raise AnnotationError(file, "", f"expected the element <annotation>, got <{root.tag[:40]}>")
    return root


def _draft(file: Path, image: Path, skipped: SkippedAnnotations) -> _Draft:
    root = _parse(file)
    found = [
        skipped.attempt(lambda number=number, element=element: _object(file, number, element))
        for number, element in enumerate(root.findall("object"), 1)
    ]
    whole = _Element(root, file, "")
    width, height = (
        int(whole.number(f"size/{side}")) if root.findtext(f"size/{side}") else 0 for side in ("width", "height")
    )
    if width < 0 or height < 0:
        whole.fail(f"<size> must be positive, got {width} x {height}")
    known = width > 0 and height > 0  # tools write 0 where they do not know it
    return _Draft(file, image, width if known else None, height if known else None, [one for one in found if one])


def _object(file: Path, number: int, element: ElementTree.Element) -> tuple[str, Annotation]:
    """The class and the annotation of an <object>. Its <part>s are not read."""
    place = f"object {number} ({(element.findtext('name') or 'without name').strip()[:40]})"
    reader = _Element(element, file, place)
    name = reader.text("name")
    left, top, right, bottom = (reader.number(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax"))
    box = np.array([left - 1, top - 1, right, bottom])
    if right <= left - 1 or bottom <= top - 1:
        reader.fail(f"the box ends before it begins: xmin {left:g}, ymin {top:g}, xmax {right:g}, ymax {bottom:g}")
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return name, Annotation(f"{file.stem}, {place}", box, 0, area, difficult=reader.flag("difficult"))
