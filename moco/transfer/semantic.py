"""Images with a class for each pixel: pairs of an image and a label file, and the meaning of the labels."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event

import numpy as np
from jaxtyping import Int16, Int64, UInt8
from PIL import Image

from moco.data.decode.rgb import check_size
from moco.data.loader.threads import in_order
from moco.device import workers_for
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.images import size_of
from moco.transfer.readers.mat import read_structs

IGNORED = 255  # label of pixels that are excluded from training and scores
UNKNOWN = -1  # in SemanticSet.table: a value that the format does not define
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class SemanticScene:
    """One image and the file with the label value of each pixel."""

    path: Path
    id: str
    labels: Path


@dataclass(frozen=True)
class LabelSummary:
    """Facts about all label files of a set."""

    pixels: Int64[np.ndarray, "K"]  # of each class
    digest: str  # the first 16 characters of a SHA-256 of all labels


@dataclass(frozen=True)
class SemanticSet:
    """Pairs of image and label file. Their order depends only on their names."""

    classes: tuple[str, ...]
    scenes: tuple[SemanticScene, ...]
    table: Int16[np.ndarray, "256"]  # for each value in a file its class, IGNORED or UNKNOWN
    colours: Mapping[Colour, int] | None = None  # the value of each colour, if label files may be RGB

    def __len__(self) -> int:
        return len(self.scenes)

    def read_labels(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """The class of each pixel, 0 to K - 1, or IGNORED.

        Raises:
            AnnotationError: not an image of values, a value without a class, or another size than the image.
        """
        scene = self.scenes[index]
        values, size = _values(scene, self.colours)
        labels = self.table[values]
        if (labels == UNKNOWN).any():
            unknown = np.unique(values[labels == UNKNOWN])[:5].tolist()
            raise AnnotationError(scene.labels, scene.id, f"has pixels with values that are no class: {unknown}")
        if size != labels.shape[::-1]:
            raise AnnotationError(
                scene.labels,
                scene.id,
                f"has {labels.shape[1]} x {labels.shape[0]} pixels, its image {size[0]} x {size[1]}",
            )
        return labels.astype(np.uint8)

    @cached_property
    def summary(self) -> LabelSummary:
        """Read and check every label file, once, before a run starts. Raises AnnotationError, as `read_labels`."""
        pixels = np.zeros(256, dtype=np.int64)
        digest = hashlib.sha256(repr(self.classes).encode())

        def read(index: int, stopped: Event) -> tuple[bytes, Int64[np.ndarray, "256"]]:
            labels = self.read_labels(index)
            content = hashlib.sha256(repr(labels.shape).encode())
            content.update(labels.tobytes())
            return content.digest(), np.bincount(labels.ravel(), minlength=256)

        results = in_order(read, range(len(self)), workers=workers_for(None))
        for scene, (content, counts) in zip(self.scenes, results, strict=True):
            digest.update(scene.id.encode() + content)
            pixels += counts
        return LabelSummary(pixels[: len(self.classes)], digest.hexdigest()[:16])


def table_of(values: Mapping[int, int]) -> Int16[np.ndarray, "256"]:
    """The table of a SemanticSet, from a format's values and their classes."""
    table = np.full(256, UNKNOWN, dtype=np.int16)
    for value, label in values.items():
        table[value] = label
    return table


def _values(
    scene: SemanticScene, colours: Mapping[Colour, int] | None
) -> tuple[UInt8[np.ndarray, "H W"], tuple[int, int]]:
    """The values in a label file, and the width and height of its image (turned upright)."""
    if scene.labels.suffix == ".mat":
        return _of_sbd(scene), size_of(scene.path)
    try:
        size = size_of(scene.path)
        with Image.open(scene.labels) as image:
            check_size(*image.size)
            mode, pixels = image.mode, np.asarray(image)
    except Exception as error:  # damaged files raise nearly everything
        raise AnnotationError(scene.labels, scene.id, f"cannot be read ({str(error)[:100]})") from error
    if mode in ("RGB", "RGBA") and colours is not None:
        return _of_colours(scene, pixels[..., :3], colours), size
    if mode == "1":
        return pixels.astype(np.uint8), size
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu" or pixels.min(initial=0) < 0 or pixels.max(initial=0) > 255:
        raise AnnotationError(
            scene.labels, scene.id, f"expected one value from 0 to 255 for each pixel, got mode {mode}"
        )
    return pixels.astype(np.uint8), size


def _of_sbd(scene: SemanticScene) -> UInt8[np.ndarray, "H W"]:
    """The values in a file of SBD, GTcls.Segmentation."""
    values = read_structs(scene.labels).get("GTcls", {}).get("Segmentation")
    if values is None or values.ndim != 2 or values.dtype.kind not in "iu" or values.min(initial=0) < 0 \
            or values.max(initial=0) > 255:  # fmt: skip
        raise AnnotationError(scene.labels, scene.id, "expected GTcls.Segmentation with a value from 0 to 255 a pixel")
    return values.astype(np.uint8)


def _of_colours(
    scene: SemanticScene, pixels: UInt8[np.ndarray, "H W 3"], colours: Mapping[Colour, int]
) -> UInt8[np.ndarray, "H W"]:
    codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1])
    known = {(red << 16) | (green << 8) | blue: value for (red, green, blue), value in colours.items()}
    present, inverse = np.unique(codes, return_inverse=True)
    missing = [code for code in present.tolist() if code not in known]
    if missing:
        colour = (missing[0] >> 16, missing[0] >> 8 & 255, missing[0] & 255)
        raise AnnotationError(scene.labels, scene.id, f"has pixels with a colour that is no class: {colour}")
    values = np.array([known[code] for code in present.tolist()], dtype=np.uint8)
    return values[inverse.reshape(codes.shape)]
