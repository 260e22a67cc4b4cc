"""Images whose bands are all read, in full depth, each mapped to [0, 1]."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from moco.data.decode.bands import Bands, Raw, to_picture, to_unit
from moco.data.decode.decode import BadImage
from moco.data.sources.folder import Folder
from moco.data.sources.images import DataError, Images, SameImages, forget, prefetch, read_bands
from moco.recipe import DataSpec
from moco.text import plural

SAMPLE = 256  # images that are read to measure bands
SAMPLED_VALUES = 4096  # of each band of each of them
CUT = 0.1  # [%] of the values at either end that may lie outside of a measured range


def in_bands(images: Images, data: DataSpec) -> Images:
    """`images` as `data` reads them: unchanged, or with all bands."""
    return images if data.bands is None else BandImages(images, data.bands)


class BandImages(SameImages):
    """`images` with all their bands, mapped to [0, 1] by a range (low, high) each."""

    def __init__(self, images: Images, ranges: Sequence[tuple[float, float]]):
        self.images, self.ranges = images, ranges

    def prefetch(self, indices: Iterable[int]) -> None:
        prefetch(self.images, indices)

    def forget(self) -> None:
        forget(self.images)

    def read_bands(self, index: int) -> Raw:
        return read_bands(self.images, index)

    def read(self, index: int) -> Bands:
        """All bands of image `index`, in [0, 1]. Raises BadImage."""
        try:
            return to_unit(read_bands(self.images, index), self.ranges)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise BadImage(self.names[index], str(error)) from error


@dataclass(frozen=True, eq=False)
class PictureFolder(Folder):
    """A folder of images with bands, which `read` gives as pictures for people to look at."""

    ranges: Sequence[tuple[float, float]]

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return to_picture(BandImages(self, self.ranges).read(index))


def as_pictures(images: Folder, data: DataSpec) -> Folder:
    """`images`, of which `read` gives pictures."""
    if data.bands is None or not images.local:
        return images
    return PictureFolder(**{one.name: getattr(images, one.name) for one in fields(images)}, ranges=data.bands)


class MeasuredBands(NamedTuple):
    """What the values of some images are, band by band."""

    ranges: list[tuple[float, float]]  # without the lowest and highest 0.1 %; all of 0 to 255 for bytes
    mean: list[float]  # of the values that `ranges` maps to [0, 1]
    std: list[float]

    def changes(self) -> dict[str, Any]:
        """The changes to a recipe: these bands, and views without hue, saturation and grey."""
        views = {"grey": 0.0, "jitter.hue": 0.0, "jitter.saturation": 0.0, "jitter.bands": 0.2}
        return {
            "encoder.channels": len(self.ranges), "data.bands": self.ranges, "data.mean": self.mean,
            "data.std": self.std, "data.shrink": None, "data.decode": "exact",
        } | {f"data.views.{view}.{name}": value for view in (0, 1) for name, value in views.items()}  # fmt: skip


def measure_bands(images: Images) -> MeasuredBands:
    """Measure the bands on up to 256 images, evenly spaced.

    Raises:
        DataError: none can be read, they differ in their number of bands, or a band has one value only.
    """
    parts = list[Raw]()
    first = reason = ""
    for index in np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int).tolist():
        try:
            raw = read_bands(images, index)
        except BadImage as bad:
            reason = str(bad)
            continue
        if parts and raw.shape[2] != parts[0].shape[1]:
            raise DataError(
                f"all images must have the same bands: {first} has {plural(parts[0].shape[1], 'band')}, and "
                f"{images.names[index]} has {raw.shape[2]}. Put them into folders of their own"
            )
        first = first or images.names[index]
        values = raw.reshape(-1, raw.shape[2])
        parts.append(values[:: max(1, len(values) // SAMPLED_VALUES)])
    if not parts:
        raise DataError(f"none of {plural(min(SAMPLE, len(images)), 'image')} can be read ({reason})")
    return _measured(parts)


def _measured(parts: Sequence[np.ndarray]) -> MeasuredBands:
    values = np.concatenate(parts).astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    ranges = [(0.0, 255.0)] * values.shape[1]
    if parts[0].dtype != np.uint8:
        low, high = np.nanpercentile(values, [CUT, 100 - CUT], axis=0)
        ranges = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    flat = [band for band, (low, high) in enumerate(ranges) if not low < high]
    if flat:
        raise DataError(
            f"band {flat[0]} (of 0 to {len(ranges) - 1}) has the same value everywhere: store the images without it, "
            "or set data.bands yourself"
        )
    unit = to_unit(values[:, None], ranges)
    mean, std = unit.mean(axis=(0, 1), dtype=np.float64), unit.std(axis=(0, 1), dtype=np.float64)
    return MeasuredBands(ranges, [round(float(x), 6) for x in mean], [round(max(float(x), 1e-6), 6) for x in std])
