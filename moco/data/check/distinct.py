"""How many different pictures there are, estimated from a sample: copies and near-duplicates count once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from moco.data.check.near_duplicates import find_near, signature_of

FLAT = 4  # [of 255] range of each colour in a blank image, at most

Signature = tuple[int, UInt8[np.ndarray, "16 16"]] | None  # None: the picture is blank


class SamePictures(NamedTuple):
    """How often images of a sample show the same picture."""

    same: float  # the probability that two different files show the same picture; blank ones are all the same
    blank: float  # share of images of a single colour


def picture_signature(pixels: UInt8[np.ndarray, "H W 3"]) -> Signature:
    """The signature by which copies of a picture are found (`moco.data.check.near_duplicates`)."""
    blank = np.ptp(pixels, axis=(0, 1)).max() <= FLAT
    return None if blank else signature_of(pixels)


def measure_same_pictures(signatures: Sequence[Signature]) -> SamePictures:
    """The share of pairs that show the same picture, and the share of blank pictures, all taken as the same."""
    found = [one for one in signatures if one is not None]
    sizes = [len(signatures) - len(found)]
    if found:
        hashes = np.array([number for number, _ in found], dtype=np.uint64)
        sizes += [len(group) for group in find_near(hashes, np.stack([small for _, small in found]))]
    pairs = len(signatures) * (len(signatures) - 1)
    return SamePictures(sum(size * (size - 1) for size in sizes) / max(pairs, 1), sizes[0] / max(len(signatures), 1))


def estimate_distinct(total: int, sampled: int, found: SamePictures) -> float:
    """Different pictures among `total` images: one over the probability that two draws give the same one.

    This number decides how often a queue of K keys has a copy of the query. It is n for c copies of each of n
    pictures. All blank images are one picture.
    """
    blank = round(found.blank * sampled)
    others = sampled - blank
    if others < 2:
        return float(others + (blank > 0))
    same = (found.same * sampled * (sampled - 1) - blank * (blank - 1)) / (others * (others - 1))
    return 1 / (sampled / (others * total) + same) + (blank > 0)
