"""I10 to I12: damaged annotations of objects and of pixels, and masks that could crash C code."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from moco.data.sources.images import DataError
from moco.transfer import masks
from moco.transfer.readers.entries import AnnotationError
from moco.transfer.readers.formats import read_scenes, read_semantic
from moco.transfer.readers.shared import ReadOptions
from tests.damage import VALUES, places, put
from tests.faults.matrix import Fault, Tally
from tests.transfer import sample_coco, sample_voc
from tests.transfer.draw_shapes import make_shapes

SHAPES = {"shapes": [{"label": "a", "points": [[1, 2], [9, 2], [4, 7]], "group_id": 1, "shape_type": "polygon"}],
          "imagePath": "a.jpg", "imageHeight": 40, "imageWidth": 50}  # fmt: skip


def with_another_value(rng: np.random.Generator, content: Any) -> str:
    """The content as JSON, with one random value replaced."""
    damaged = copy.deepcopy(content)
    every = places(damaged)
    put(damaged, every[int(rng.integers(len(every)))], VALUES[int(rng.integers(len(VALUES)))])
    return json.dumps(damaged)


def with_other_bytes(rng: np.random.Generator, text: str | bytes) -> bytes:
    """The text or file, truncated or with some bytes changed."""
    data = bytearray(text.encode() if isinstance(text, str) else text)
    if rng.random() < 0.3:
        return bytes(data[: int(rng.integers(len(data)))])
    for place in rng.integers(0, len(data), int(rng.integers(1, 5))):
        data[place] = int(rng.choice([0, 10, 32, 45, 46, 57, 60, 101, 255]))
    return bytes(data)


def _coco(folder: Path) -> tuple[Path, Callable[[np.random.Generator], bytes], str | None]:
    content = sample_coco.content()
    file = sample_coco.write(folder, content)
    return file, lambda rng: with_another_value(rng, content).encode(), None


def _labelme(folder: Path) -> tuple[Path, Callable[[np.random.Generator], bytes], str | None]:
    sample_voc.picture(folder / "a.jpg")
    return folder / "a.json", lambda rng: with_another_value(rng, SHAPES).encode(), None


def _voc(folder: Path) -> tuple[Path, Callable[[np.random.Generator], bytes], str | None]:
    text = sample_voc.xml(sample_voc.PERSON_WITH_HEAD, sample_voc.element("car", (1, 2, 9, 9)))
    root = sample_voc.devkit(folder)
    return root / "VOC2007" / "Annotations" / "000009.xml", lambda rng: with_other_bytes(rng, text), "2007_test"


def _yolo(folder: Path) -> tuple[Path, Callable[[np.random.Generator], bytes], str | None]:
    sample_voc.picture(folder / "images" / "a.jpg")
    (folder / "labels").mkdir()
    (folder / "classes.txt").write_text("cat\ndog\n")
    text = "1 0.5 0.25 0.2 0.5\n0 0.1 0.2 0.5 0.2 0.5 0.9\n"
    return folder / "labels" / "a.txt", lambda rng: with_other_bytes(rng, text), None


FORMATS = {"coco": _coco, "labelme": _labelme, "voc": _voc, "yolo": _yolo}


def damaged(count: int, folder: Path) -> Tally:
    """Each file is read, or gives an error that names the file."""
    tally = Tally()
    prepared = {name: prepare(folder / name) for name, prepare in FORMATS.items() if not (folder / name).mkdir()}
    for number in range(count):
        name = [*FORMATS][number % len(FORMATS)]
        file, damage, split = prepared[name]
        file.write_bytes(damage(np.random.default_rng(number)))
        root = folder / name / "VOCdevkit" if name == "voc" else file if name == "coco" else folder / name
        try:
            read_scenes(root, ReadOptions(split=split), format=name)
        except AnnotationError as error:
            tally += error.file == file and str(file) in str(error)
        except DataError as error:
            tally += "has no images" in str(error)
        except Exception:
            tally += False
        else:
            tally += True
    return tally


def hostile_masks(count: int, folder: Path) -> Tally:
    """Each mask is refused, or C code merges it with another one and measures it."""
    from pycocotools import mask as coco_mask

    tally = Tally()
    for number in range(count):
        rng = np.random.default_rng(number)
        height, width = rng.integers(1, 40, 2).tolist()
        whole = masks.rle_dict(masks.rle_of_bitmap(np.ones((height, width), dtype=bool)), height, width)
        try:
            mask = _random_mask(rng, number % 4, height, width)
            encoded = masks.rle_dict(mask, height, width)
            area = float(coco_mask.area(encoded))
            tally += area == float(coco_mask.area(coco_mask.merge([encoded, whole], intersect=True)))
        except ValueError:
            tally += True
        except Exception:
            tally += False
    return tally


def _random_mask(rng: np.random.Generator, kind: int, height: int, width: int) -> masks.Rle | tuple[np.ndarray]:
    if kind == 0:
        return masks.rle_of_text(height, width, rng.integers(0, 256, int(rng.integers(0, 40)), np.uint8).tobytes())
    if kind == 1:
        return masks.rle_of_text(height, width, rng.integers(48, 112, int(rng.integers(1, 12)), np.uint8).tobytes())
    if kind == 2:
        return masks.rle_of_runs(height, width, rng.integers(-2, 2**40, int(rng.integers(0, 9))))
    values = rng.choice([0.0, 5.0, 1e3, 9e8, -9e8, np.nan, np.inf, 1e300], int(rng.integers(0, 9)))
    return (values,)


def damaged_labels(count: int, folder: Path) -> Tally:
    """The label file gives a known class for each pixel of the image, or an error that names the file and the image."""
    tally = Tally()
    scenes = read_semantic(make_shapes(folder / "shapes", 1, seed=0, size=(40, 30)))
    file, intact = scenes.scenes[0].labels, scenes.scenes[0].labels.read_bytes()
    for number in range(count):
        rng = np.random.default_rng(number)
        file.write_bytes(_another_image(rng) if number % 2 else with_other_bytes(rng, intact))
        try:
            labels = scenes.read_labels(0)
            tally += labels.shape == (30, 40) and set(np.unique(labels)) <= {0, 1, 2, 3, 255}
        except AnnotationError as error:
            tally += error.file == file and str(file) in str(error) and "0000" in str(error)
        except Exception:
            tally += False
    return tally


def _another_image(rng: np.random.Generator) -> bytes:
    """An image that may be of another size, mode or format, with values that may be no classes."""
    height, width = (30, 40) if rng.random() < 0.6 else rng.integers(1, 60, 2)
    values = rng.integers(0, int(rng.choice([2, 4, 5, 256, 1000])), (height, width))
    kinds = (np.uint8, np.uint16, np.int32, np.float32, np.bool_)
    image = Image.fromarray(values.astype(kinds[int(rng.integers(len(kinds)))]))
    if image.mode == "L" and rng.random() < 0.5:
        image = image.convert(str(rng.choice(["RGB", "RGBA", "LA", "P", "CMYK"])))
    stream = io.BytesIO()
    image.save(stream, "TIFF" if image.mode in ("F", "I", "CMYK") or rng.random() < 0.1 else "PNG")
    return stream.getvalue()


FAULTS = [
    Fault("I10", "damaged annotations of objects (COCO, VOC, YOLO, LabelMe)", "read, or refused with file and entry",
          "every value is checked when it is read (`tests/transfer/test_coco_damaged.py`: a case for each check)",
          1000, 40, damaged),
    Fault("I11", "masks and polygons that crash C code", "refused, or measured correctly; the process survives",
          "run lengths and outlines are checked before they reach C code (`tests/faults/test_guards_of_masks.py`: "
          "without the check the process dies)", 2000, 80, hostile_masks),
    Fault("I12", "damaged files with a class for each pixel (bytes, sizes, modes, values)",
          "known classes of the image's size, or refused with file and image",
          "every label file is read before the first run starts (`tests/transfer/test_segment.py`: "
          "`test_bad_labels_are_refused_before_anything_is_written`)", 1000, 60, damaged_labels),
]  # fmt: skip
