"""Make the demo's images: Fashion-MNIST's garments, scaled and placed at random on a 32 x 32 canvas.

On the aligned originals, a demo of a few minutes hardly beats raw pixels; placed at random, the garments need a learned
representation.

    python benchmarks/make_demo_data.py FOLDER            # writes moco/data/demo/fashion-mnist-placed.zip
    python benchmarks/make_demo_data.py FOLDER --check    # makes it again and compares it with the existing one

FOLDER holds the four .gz files of Fashion-MNIST (Debian's package dataset-fashion-mnist has them in
/usr/share/datasets/fashion-mnist). The pixels are the same everywhere; the bytes of the PNGs are those of Pillow 13.
"""

import argparse
import gzip
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moco.data.sources import demo

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
PICTURES = {"train": ("train", 12_000), "test": ("t10k", 2_000)}  # split -> prefix of the source files, how many
CANVAS = 32  # [pixels]
SCALE = (0.6, 1.0)  # of a garment's 28 pixels
SEED = 0
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the date of every member, so that the same pictures make the same bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args()
    made = zipped(pictures(args.folder))
    digest = hashlib.sha256(made).hexdigest()
    target = Path(demo.__file__).parent / "demo" / demo.ARCHIVE
    if not args.check:
        target.write_bytes(made)
        print(f"{target}: {len(made)} bytes, sha256 {digest}")
        same = digest == demo.SHA256
        print("demo.py has this digest" if same else f'set SHA256 = "{digest}" in demo.py')
    elif digest == demo.SHA256:
        print(f"the same bytes: sha256 {digest}")
    elif contents(made) == contents(target.read_bytes()):
        print("the same pictures, packed into other bytes by another version of Pillow or zlib")
    else:
        sys.exit(f"expected the pictures of {target}, made others: is {args.folder} the original data?")


def pictures(folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """The name in the archive, and the picture, of everything in the demo's data."""
    for place, (split, (prefix, count)) in enumerate(PICTURES.items()):
        garments = idx(folder / f"{prefix}-images-idx3-ubyte.gz")[:count]
        labels = idx(folder / f"{prefix}-labels-idx1-ubyte.gz")[:count]
        scale, down, right = (uniform(place, count, slot) for slot in range(3))
        scale = SCALE[0] + (SCALE[1] - SCALE[0]) * scale
        for index in range(count):
            image = placed(garments[index], scale[index], down[index], right[index])
            yield f"{split}/{CLASSES[labels[index]]}/{index:05d}.png", image


def uniform(split: int, count: int, slot: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) by SplitMix64. Not by moco.rng: that may change, and the pictures must not."""

    def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    key = np.random.SeedSequence([SEED, split]).generate_state(1, np.uint64)[0]
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        word = mix(mix(np.arange(count, dtype=np.uint64) * step + key) + np.uint64(slot + 1) * step)
        word = mix(word ^ key)
    return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53


def idx(path: Path) -> NDArray[np.uint8]:
    """The array in a gzipped file of the IDX format: magic number (its last byte: dimensions), sizes, values."""
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def placed(garment: NDArray[np.uint8], scale: float, down: float, right: float) -> Image.Image:
    """`garment` at `scale` on the black canvas, wholly inside; `down` and `right` are in [0, 1)."""
    side = round(garment.shape[0] * scale)
    room = CANVAS - side + 1
    canvas = Image.new("L", (CANVAS, CANVAS))
    resized = Image.fromarray(garment).resize((side, side), Image.Resampling.BILINEAR)  # antialiased in Pillow
    canvas.paste(resized, (int(right * room), int(down * room)))
    return canvas


def zipped(images: Iterator[tuple[str, Image.Image]]) -> bytes:
    """A zip of PNGs, stored (they are deflated already)."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as members:
        for name, image in images:
            png = io.BytesIO()
            image.save(png, "PNG", optimize=True)
            members.writestr(zipfile.ZipInfo(name, LONG_AGO), png.getvalue())
    return archive.getvalue()


def contents(archive: bytes) -> dict[str, bytes]:
    """The pixels of every picture by its name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        return {name: Image.open(io.BytesIO(members.read(name))).tobytes() for name in members.namelist()}


if __name__ == "__main__":
    main()
