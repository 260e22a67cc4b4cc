"""Folders of JPEGs to be read, made at run time from the real photographs that matplotlib and scikit-learn ship.

ImageNet's files have about half a byte a pixel, and decoding takes time in proportion to both.
"""

import io
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

CLASSES = 4
IMAGENET = ((500, 375), (375, 500), (500, 375), (500, 333), (500, 500))  # [pixels] width and height; 196,000 on average
BYTES = 0.5  # a pixel: 110 KB for the 220,000 pixels of ImageNet's average file
GRAIN = 4.0  # [of 255] standard deviation: what enlarging a photograph has taken from it
QUALITIES = range(75, 98)


def jpegs(folder: Path, count: int, *, sizes: tuple[tuple[int, int], ...] = IMAGENET) -> Path:
    """`folder` with `count` JPEGs in a few class folders: parts of photographs, of `sizes` in turn."""
    rng, sources = np.random.default_rng(0), photographs()
    for index in range(count):
        part = part_of(sources[index % len(sources)], sizes[index % len(sizes)], rng)
        path = folder / f"class{index % CLASSES}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(part))
    return folder


def photographs() -> list[Image.Image]:
    """Three at most: a portrait of matplotlib's, and a building and a flower where scikit-learn is installed."""
    files = [Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")]
    spec = find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        files += sorted(Path(spec.origin).with_name("datasets").glob("images/*.jpg"))
    return [Image.open(file).convert("RGB") for file in files]


def part_of(photograph: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Somewhere in the photograph, at most enlarged as far as it must be to have `size`, perhaps mirrored."""
    least = max(side / whole for side, whole in zip(size, photograph.size, strict=True))
    width, height = (side / least / rng.uniform(1, 1.2) for side in size)
    left, top = (
        rng.uniform(0, whole - side) for whole, side in zip(photograph.size, (width, height), strict=True)
    )  # fmt: skip
    part = photograph.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    pixels = np.asarray(part)[:, :: rng.choice([-1, 1])] + rng.normal(0, GRAIN, (size[1], size[0], 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image) -> bytes:
    """A JPEG with about `BYTES` a pixel."""
    low, high = QUALITIES[0], QUALITIES[-1]
    while low < high:
        quality = (low + high + 1) // 2
        low, high = (quality, high) if len(_jpeg(image, quality)) <= BYTES * image.width * image.height else (
            low, quality - 1,
        )  # fmt: skip
    return _jpeg(image, low)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def small_pngs(folder: Path, count: int, *, side: int = 32) -> Path:
    """`folder` with `count` PNGs of `side` x `side` pixels: parts of photographs, made smaller."""
    rng, sources = np.random.default_rng(0), photographs()
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        part = part_of(sources[index % len(sources)], (4 * side, 4 * side), rng)
        part.resize((side, side), Image.Resampling.BOX).save(folder / f"{index:05d}.png")
    return folder
