"""The threshold of near-duplicates for one encoder and one collection, from copies that are planted in it."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from moco.atlas.collection import Collection
from moco.atlas.index import Index
from moco.atlas.whitening import FEWEST_FOR_WHITENING, Whitening
from moco.data.check.near_duplicates import MIN_CORRELATION, signature_of
from moco.data.decode.decode import BadImage

Thumbnail = UInt8[np.ndarray, "16 16"]
LOOKED_AT = 20  # nearest images, for one that is no copy
SAMPLE = 100  # images of which copies are made
MOST_PIXELS = 16_000_000  # of an image that is copied: larger ones take long
STEPS = 400  # thresholds that are tried: 0.0025 apart
COST = 3  # an image that is wrongly left out counts as so many copies that are not found


def _encoded(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _half(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)


def _cropped(image: Image.Image) -> Image.Image:
    x, y = round(0.03 * image.width), round(0.03 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded as JPEG, quality 50": lambda image: _encoded(image, 50),
    "half the sides": _half,
    "3 % cut off at each side": _cropped,
}


@dataclass(frozen=True, eq=False)
class Calibration:
    """How well near-duplicates of a collection are told from other images by one threshold."""

    threshold: float
    found: float  # share of the planted copies that are at least so similar to their original
    others: float  # share of the same images that have another one so near that is no copy, by its pixels

    def __str__(self) -> str:
        return (
            f"finds {self.found:.0%} of planted copies (re-encoded, half the size, cropped); "
            f"{self.others:.0%} of the images have a different image that is as similar"
        )


def calibrate(
    collection: Collection, whitening: Whitening, index: Index, x: Float32[np.ndarray, "n D"]
) -> Calibration | None:
    """The threshold that finds most planted copies and takes few other images for copies.

    Of 100 random images, copies are made and encoded. Chosen is the threshold with the greatest share of copies found
    minus COST times the share of images that have another one as near whose thumbnail shows that it is no copy.

    Args:
        x: the whitened features of the collection, which are in `index`.

    Returns:
        None if there are too few images, no encoder, or one for bands.
    """
    if collection.encoder is not None and collection.encoder.data.bands is not None:  # the changes are for RGB
        return None
    if collection.encoder is None or collection.images is None or len(collection) < FEWEST_FOR_WHITENING:
        return None
    rows, copies, thumbnails = _copies(collection)
    if not len(rows):
        return None
    features: Any = collection.encoder.embed(copies, workers=0)
    to_original = np.einsum("nd,nd->n", whitening(features), x[np.repeat(rows, len(CHANGES))])
    found = index.nearest(x[rows], min(LOOKED_AT, len(x)))
    others = [
        _nearest_other(collection, row, thumbnail, *one)
        for row, thumbnail, *one in zip(rows.tolist(), thumbnails, *found, strict=True)
    ]
    return choose_threshold(to_original, np.array(others, dtype=np.float32))


def _nearest_other(
    collection: Collection, row: int, thumbnail: Thumbnail, similarities: np.ndarray, rows: np.ndarray
) -> float:
    """The similarity of the nearest image whose pixels show that it is no copy; -1 if none of `rows` is one."""
    for similarity, other in zip(similarities.tolist(), rows.tolist(), strict=True):
        if other in (row, -1):
            continue
        try:
            pixels = collection.require_images().read(int(collection.ids[other]))
        except BadImage:
            continue
        if not _is_copy(thumbnail, signature_of(pixels)[1]):
            return similarity
    return -1


def _is_copy(a: Thumbnail, b: Thumbnail) -> bool:
    """Whether two thumbnails are nearly the same, as for `moco check`."""
    if a.std() == 0 or b.std() == 0:
        return bool((a == b).all())
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) >= MIN_CORRELATION


def _copies(collection: Collection) -> tuple[Int64[np.ndarray, "m"], Sequence[np.ndarray], Sequence[Thumbnail]]:
    """Rows of random images, the pixels of their copies, those of one image in turn, and their thumbnails."""
    images, rows, copies, thumbnails = collection.require_images(), list[int](), list[np.ndarray](), list[Thumbnail]()
    for row in np.random.default_rng(0).permutation(len(collection)).tolist():
        try:
            pixels = images.read(int(collection.ids[row]))
        except BadImage:
            continue
        if pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS:
            rows.append(row)
            thumbnails.append(signature_of(pixels)[1])
            copies += [np.asarray(change(Image.fromarray(pixels))) for change in CHANGES.values()]
        if len(rows) == SAMPLE:
            break
    return np.array(rows, dtype=np.int64), copies, thumbnails


def choose_threshold(copies: Float32[np.ndarray, "m"], others: Float32[np.ndarray, "n"]) -> Calibration:
    """The threshold with the greatest share of `copies` minus COST times the share of `others` at or above it.

    Of several, the middle one.
    """
    thresholds = np.arange(1, STEPS + 1) / STEPS
    found = (copies >= thresholds[:, None]).mean(axis=1)
    wrong = (others >= thresholds[:, None]).mean(axis=1)
    score = found - COST * wrong
    best = np.flatnonzero(score >= score.max() - 1e-9)
    k = best[len(best) // 2]
    return Calibration(float(thresholds[k]), float(found[k]), float(wrong[k]))
