"""Folders in the format of Pascal VOC, as the devkits and annotation tools write them."""

from pathlib import Path

import numpy as np
from PIL import Image

from moco.transfer.readers.voc_semantic import palette


def picture(path: Path, width: int = 50, height: int = 40, seed: int = 0) -> Path:
    """A small image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def element(name: str, box, *, difficult: str = "<difficult>0</difficult>", more: str = "") -> str:
    corners = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name><pose>Left</pose>{difficult}<bndbox>{corners}</bndbox>{more}</object>"


def xml(*objects: str, size: str = "<size><width>50</width><height>40</height><depth>3</depth></size>") -> str:
    return f"<annotation><folder>VOC</folder><filename>wrong name.jpg</filename>{size}{''.join(objects)}</annotation>"


PERSON_WITH_HEAD = element(
    "person", (11, 5, 30, 40), more="<part><name>head</name><bndbox><xmin>12</xmin><ymin>5</ymin><xmax>20</xmax>"
    "<ymax>12</ymax></bndbox></part>"
)  # fmt: skip


def devkit(root: Path) -> Path:
    """VOCdevkit with 2007 and 2012: the ugly cases of the real one."""
    year07, year12 = root / "VOCdevkit" / "VOC2007", root / "VOCdevkit" / "VOC2012"
    files = {
        (year07, "000012"): xml(element("car", (1, 1, 50, 40)), element("dog", (7, 9, 7, 9))),  # the whole, a pixel
        (year07, "000005"): xml(element("chair", (2, 3, 20, 30), difficult="<difficult>1</difficult>")),
        (year07, "000007"): xml(PERSON_WITH_HEAD, size=""),
        (year07, "000009"): xml(),  # no objects
        (year12, "2008_000001"): xml(
            element("boat", ("45.70000076293945", 2, "49.5", 39), difficult=""),
            size="<size><width>0</width><height>0</height></size>",
        ),
    }
    for seed, ((year, name), text) in enumerate(files.items()):
        (year / "Annotations").mkdir(parents=True, exist_ok=True)
        (year / "Annotations" / f"{name}.xml").write_text(text)
        picture(year / "JPEGImages" / f"{name}.jpg", seed=seed)
    for year, split, names in (
        (year07, "trainval", ["000012", "000005", "000007"]),
        (year07, "test", ["000009"]),
        (year12, "trainval", ["2008_000001"]),
    ):
        (year / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (year / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        (year / "ImageSets" / "Main" / f"car_{split}.txt").write_text("".join(f"{name} -1\n" for name in names))
    return root / "VOCdevkit"


LABELS = np.array([[0, 15, 255], [20, 255, 0]], dtype=np.uint8)


def palette_png(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    image.putpalette([channel for colour in palette(256) for channel in colour])
    image.save(path)
    return path


def voc(root: Path, *, names: tuple[str, ...] = ("2007_000033", "2007_000032"), split: str = "train") -> Path:
    """A folder of VOC2012 with the class of each pixel: LABELS in every image."""
    year = root / "VOC2012"
    (year / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    (year / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
    for name in names:
        picture(year / "JPEGImages" / f"{name}.jpg", 3, 2)
        palette_png(year / "SegmentationClass" / f"{name}.png", LABELS)
    return year
