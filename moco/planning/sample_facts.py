"""What a sample tells about all images: seconds to read one, pixels, and how many different pictures there are."""

import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from moco.data.check.distinct import estimate_distinct, measure_same_pictures, picture_signature
from moco.data.decode.bands import to_picture
from moco.data.decode.decode import BadImage
from moco.data.sources.images import DataError, Images
from moco.rng import fold, permute

MOST = 2000  # images of a sample
SEED = 0


@dataclass(frozen=True)
class SampleFacts:
    """What was measured on a random sample."""

    images: int  # in the sample
    read: float  # [s] to read and decode an image in one thread
    pixels: float  # of an image, mean
    side: int  # [pixels] of the shorter side, median
    distinct: int  # different pictures among all images


def measure_sample(images: Images, *, seconds: float) -> SampleFacts:
    """Read a random sample, for at most about so many seconds, and look for copies in it. Bad images are left out.

    Raises:
        DataError: none of the images can be read.
    """
    count = min(MOST, len(images))
    chosen = permute(np.arange(count), len(images), fold(SEED))
    began, reading, shapes, signatures = time.perf_counter(), 0.0, [], []
    for index in chosen.tolist():
        start = time.perf_counter()
        with suppress(BadImage):
            pixels = images.read(index)
            reading += time.perf_counter() - start
            shapes.append(pixels.shape[:2])
            signatures.append(picture_signature(to_picture(pixels)))
        if time.perf_counter() - began > seconds and len(shapes) > 1:
            break
    if not shapes:
        raise DataError(f"none of the {count:,} images that were tried can be read: see what moco check says of them")
    number = len(shapes)
    distinct = estimate_distinct(len(images), number, measure_same_pictures(signatures))
    return SampleFacts(
        number, reading / number, float(np.mean([height * width for height, width in shapes])),
        int(np.median([min(shape) for shape in shapes])), max(1, round(distinct)),
    )  # fmt: skip
