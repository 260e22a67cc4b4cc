"""Images that are nearly the same: another size, compression or brightness of one picture, frames of one scene.

A picture is known by 64 signs of its lowest frequencies (a perceptual hash), and by its greys at 16 x 16 places. Two
are near when few signs differ and the greys go together; the first finds pairs quickly, the second confirms them.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64
from PIL import Image

SIDE, PLACES = 32, 16  # the picture whose frequencies are taken, and places that are compared, per side
SIGNS = 7  # that may differ, of 64: then one of 8 bytes of them is the same, which is where pairs are looked for
TOGETHER = 0.98  # least correlation of the greys
BLOCK, PART = 2**18, 2**13  # pairs whose signs, and images whose greys, are compared at once
SMALL = 1024  # images that are compared each with each


def signs_of(pixels: UInt8[np.ndarray, "H W 3"]) -> tuple[int, UInt8[np.ndarray, "16 16"]]:
    """The 64 signs of a picture, as bits, and its greys at 16 x 16 places."""
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2)
    small = small.convert("L")
    grey = np.asarray(small, dtype=np.float64)
    waves = np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(9)[:, None])  # of the cosine transform, 0 to 8
    frequencies = (waves @ grey @ waves.T).ravel()[1:65]  # the first is the mean
    signs = np.packbits(frequencies > np.median(frequencies))
    return int.from_bytes(signs.tobytes()), np.asarray(small.resize((PLACES, PLACES), Image.Resampling.BOX))


def near(signs: UInt64[np.ndarray, "n"], greys: UInt8[np.ndarray, "n 16 16"]) -> list[list[int]]:
    """Groups of two or more images that are near, each to another of its group, in the order of their first."""
    pictures, keys = _Pictures(signs, greys), signs.astype("<u8").view(np.uint8).reshape(len(signs), 8).T
    pairs = [pair for key in keys for bucket in _buckets(key) for pair in _join(bucket, pictures)]
    return groups(np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs]), len(signs))


def count_ones(numbers: UInt64[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """How many bits of each number are 1."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(numbers)
    bits = np.unpackbits(np.ascontiguousarray(numbers)[..., None].view(np.uint8), axis=-1)  # numpy 1.26
    return bits.sum(axis=-1, dtype=np.uint8)


def groups(pairs: Iterable[np.ndarray] | np.ndarray, n: int) -> list[list[int]]:
    """What of 0..n-1 hangs together by `pairs`, two or more each, in order."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for a, b in np.asarray(pairs).tolist():
        a, b = sorted((root(a), root(b)))
        parent[b] = a
    members: dict[int, list[int]] = {}
    for i in range(n):
        members.setdefault(root(i), []).append(i)
    return [group for group in members.values() if len(group) > 1]


def _buckets(keys: UInt8[np.ndarray, "n"]) -> list[Int64[np.ndarray, "m"]]:
    """Where equal keys are, two or more each."""
    order = np.argsort(keys, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(keys[order].astype(int))) + 1)
    return [part for part in parts if len(part) > 1]


def _join(rest: Int64[np.ndarray, "m"], pictures: "_Pictures") -> Iterator[Int64[np.ndarray, "k 2"]]:
    """Pairs that join what of `rest` hangs together: fewer than m, however many are near.

    A group grows from its first: what is near to one of it leaves the rest, and is compared with the rest in its turn.
    """
    if len(rest) <= SMALL:  # most have no such neighbour; this finds them at once
        rest = rest[pictures.few_differ(rest, rest).sum(axis=1) > 1]
    while len(rest) > 1:
        first, growing, rest = rest[0], [rest[:1]], rest[1:]
        while growing and len(rest):
            some, rows = growing.pop(), max(BLOCK // len(rest), 1)
            if len(some) > rows:
                growing.append(some[rows:])
            is_near = pictures.any_near(some[:rows], rest)
            if is_near.any():
                growing.append(rest[is_near])
                yield np.stack([np.full(len(growing[-1]), first), growing[-1]], axis=1)
                rest = rest[~is_near]


class _Pictures:
    """What is compared, by index."""

    def __init__(self, signs: UInt64[np.ndarray, "n"], greys: UInt8[np.ndarray, "n 16 16"]):
        self.signs, self.greys = signs, greys.reshape(len(greys), PLACES**2)
        self.sums = self.greys.sum(axis=1, dtype=np.float64)
        squares = np.einsum("ij,ij->i", self.greys, self.greys, dtype=np.float64)
        self.spreads = np.sqrt(PLACES**2 * squares - np.square(self.sums))

    def any_near(self, some: Int64[np.ndarray, "k"], rest: Int64[np.ndarray, "m"]) -> Bool[np.ndarray, "m"]:
        """For each of the rest, whether it is near to one of some."""
        few = self.few_differ(some, rest)
        found = np.asarray(few.any(axis=0))
        places = np.flatnonzero(found)
        for part in (places[start : start + PART] for start in range(0, len(places), PART)):
            found[part] = (few[:, part] & self.go_together(some, rest[part])).any(axis=0)
        return found

    def few_differ(self, some: Int64[np.ndarray, "k"], rest: Int64[np.ndarray, "m"]) -> Bool[np.ndarray, "k m"]:
        return count_ones(self.signs[some][:, None] ^ self.signs[rest]) <= SIGNS

    def go_together(self, some: Int64[np.ndarray, "k"], rest: Int64[np.ndarray, "m"]) -> Bool[np.ndarray, "k m"]:
        """Whether greys are correlated; those of an image of one colour are not, with any."""
        product = self.greys[some].astype(np.float32) @ self.greys[rest].astype(np.float32).T  # below 2**24, so exact
        together = PLACES**2 * product.astype(np.float64) - np.outer(self.sums[some], self.sums[rest])
        return together >= np.maximum(TOGETHER * np.outer(self.spreads[some], self.spreads[rest]), 0.5)
