"""Make folders of JPEGs from the photographs that matplotlib and scikit-learn ship.

Their size in pixels and bytes (half a byte per pixel) is as in ImageNet, because both determine the decoding time.
"""

import io
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

CLASSES = 4
IMAGENET = ((500, 375), (375, 500), (500, 375), (500, 333), (500, 500))  # [pixels] width and height; 196,000 on average
BYTES = 0.5  # per pixel: 110 KB for the 220,000 pixels of ImageNet's average file
GRAIN = 4.0  # [of 255] standard deviation of added noise, for the detail that enlarging a photograph lacks
QUALITIES = range(75, 98)


def jpegs(folder: Path, count: int, *, sizes: tuple[tuple[int, int], ...] = IMAGENET) -> Path:
    """Fill `folder` with `count` JPEGs in a few class folders: random crops of photographs, of `sizes` in turn."""
    rng, sources = np.random.default_rng(0), photographs()
    for index in range(count):
        part = part_of(sources[index % len(sources)], sizes[index % len(sizes)], rng)
        path = folder / f"class{index % CLASSES}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(part))
    return folder


def photographs() -> list[Image.Image]:
    """A portrait from matplotlib, and a building and a flower if scikit-learn is installed."""
    files = [Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")]
    spec = find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        files += sorted(Path(spec.origin).with_name("datasets").glob("images/*.jpg"))
    return [Image.open(file).convert("RGB") for file in files]


def part_of(photograph: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random crop of the photograph at `size`, perhaps mirrored; enlarged only if the photograph is too small."""
    least = max(side / whole for side, whole in zip(size, photograph.size, strict=True))
    width, height = (side / least / rng.uniform(1, 1.2) for side in size)
    left, top = (
        rng.uniform(0, whole - side) for whole, side in zip(photograph.size, (width, height), strict=True)
    )  # fmt: skip
    part = photograph.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    pixels = np.asarray(part)[:, :: rng.choice([-1, 1])] + rng.normal(0, GRAIN, (size[1], size[0], 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image) -> bytes:
    """A JPEG with about `BYTES` per pixel."""
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
    """Fill `folder` with `count` PNGs of `side` x `side` pixels: random crops of photographs, reduced."""
    rng, sources = np.random.default_rng(0), photographs()
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        part = part_of(sources[index % len(sources)], (4 * side, 4 * side), rng)
        part.resize((side, side), Image.Resampling.BOX).save(folder / f"{index:05d}.png")
    return folder
