"""Near-duplicates: another size, compression or brightness of one picture, or frames of one scene.

The signature of a picture is a perceptual hash (64 bits: whether each of 64 low DCT coefficients is above their
median) and a grey thumbnail of 16 x 16 pixels. Two pictures are near when their hashes differ in few bits and their
thumbnails are correlated. The hash finds candidates quickly, the thumbnail confirms them.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64
from PIL import Image

DCT_SIDE, THUMBNAIL_SIDE = 32, 16  # [pixels] of the picture that the hash is computed from, and of the thumbnail
MAX_DIFFERENT_BITS = 7  # of 64. At most 7 different bits leave one of the 8 bytes equal: candidates share a byte
MIN_CORRELATION = 0.98  # of the thumbnails
BLOCK = 2**18  # pairs of hashes compared at a time
PART = 2**13  # thumbnails compared at a time
SMALL = 1024  # up to so many images, all pairs of hashes are compared at once


def signature_of(pixels: UInt8[np.ndarray, "H W 3"]) -> tuple[int, UInt8[np.ndarray, "16 16"]]:
    """The hash of a picture, 64 bits, and its grey thumbnail."""
    small = Image.fromarray(pixels).resize((DCT_SIDE, DCT_SIDE), Image.Resampling.BOX, reducing_gap=2)
    small = small.convert("L")
    grey = np.asarray(small, dtype=np.float64)
    waves = np.cos(np.pi / DCT_SIDE * (np.arange(DCT_SIDE) + 0.5) * np.arange(9)[:, None])  # DCT-II, frequencies 0 to 8
    frequencies = (waves @ grey @ waves.T).ravel()[1:65]  # without the first, which is the mean grey
    bits = np.packbits(frequencies > np.median(frequencies))
    thumbnail = np.asarray(small.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))
    return int.from_bytes(bits.tobytes()), thumbnail


def find_near(hashes: UInt64[np.ndarray, "n"], thumbnails: UInt8[np.ndarray, "n 16 16"]) -> list[list[int]]:
    """Groups of two or more images, each of which is near to another one of its group, ordered by their first image."""
    signatures, hash_bytes = _Signatures(hashes, thumbnails), hashes.astype("<u8").view(np.uint8).reshape(-1, 8).T
    pairs = [pair for one in hash_bytes for bucket in _buckets(one) for pair in _near_pairs(bucket, signatures)]
    return connected_components(np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs]), len(hashes))


def count_ones(numbers: UInt64[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """How many bits of each number are 1."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(numbers)
    bits = np.unpackbits(np.ascontiguousarray(numbers)[..., None].view(np.uint8), axis=-1)  # numpy 1.26
    return bits.sum(axis=-1, dtype=np.uint8)


def connected_components(pairs: Iterable[np.ndarray] | np.ndarray, n: int) -> list[list[int]]:
    """Connected components of the graph with nodes 0..n-1 and edges `pairs`, without single nodes. Union-find."""
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


def _buckets(values: UInt8[np.ndarray, "n"]) -> list[Int64[np.ndarray, "m"]]:
    """For each value that occurs more than once, the indices where it occurs."""
    order = np.argsort(values, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(values[order].astype(int))) + 1)
    return [part for part in parts if len(part) > 1]


def _near_pairs(rest: Int64[np.ndarray, "m"], signatures: "_Signatures") -> Iterator[Int64[np.ndarray, "k 2"]]:
    """Pairs that connect the near images among `rest`: fewer than m, however many pairs are near.

    Breadth-first: a group starts with one image. Images near to a member leave `rest`, join the group, and are then
    compared with `rest` themselves.
    """
    if len(rest) <= SMALL:  # drop images without a near hash at once; most have none
        rest = rest[signatures.hashes_are_near(rest, rest).sum(axis=1) > 1]
    while len(rest) > 1:
        first, frontier, rest = rest[0], [rest[:1]], rest[1:]
        while frontier and len(rest):
            some, rows = frontier.pop(), max(BLOCK // len(rest), 1)
            if len(some) > rows:
                frontier.append(some[rows:])
            is_near = signatures.near_to_any(some[:rows], rest)
            if is_near.any():
                frontier.append(rest[is_near])
                yield np.stack([np.full(len(frontier[-1]), first), frontier[-1]], axis=1)
                rest = rest[~is_near]


class _Signatures:
    """The signatures of all images, compared by index."""

    def __init__(self, hashes: UInt64[np.ndarray, "n"], thumbnails: UInt8[np.ndarray, "n 16 16"]):
        self.hashes, self.thumbnails = hashes, thumbnails.reshape(len(thumbnails), THUMBNAIL_SIDE**2)
        self.sums = self.thumbnails.sum(axis=1, dtype=np.float64)
        squares = np.einsum("ij,ij->i", self.thumbnails, self.thumbnails, dtype=np.float64)
        self.spreads = np.sqrt(THUMBNAIL_SIDE**2 * squares - np.square(self.sums))

    def near_to_any(self, some: Int64[np.ndarray, "k"], rest: Int64[np.ndarray, "m"]) -> Bool[np.ndarray, "m"]:
        """For each image of `rest`, whether it is near to any of `some`."""
        candidates = self.hashes_are_near(some, rest)
        found = np.asarray(candidates.any(axis=0))
        places = np.flatnonzero(found)
        for part in (places[start : start + PART] for start in range(0, len(places), PART)):
            found[part] = (candidates[:, part] & self.thumbnails_are_near(some, rest[part])).any(axis=0)
        return found

    def hashes_are_near(self, some: Int64[np.ndarray, "k"], rest: Int64[np.ndarray, "m"]) -> Bool[np.ndarray, "k m"]:
        return count_ones(self.hashes[some][:, None] ^ self.hashes[rest]) <= MAX_DIFFERENT_BITS

    def thumbnails_are_near(
        self, some: Int64[np.ndarray, "k"], rest: Int64[np.ndarray, "m"]
    ) -> Bool[np.ndarray, "k m"]:
        """Whether two thumbnails are correlated. One of a single grey has no correlation with any."""
        a, b = self.thumbnails[some].astype(np.float32), self.thumbnails[rest].astype(np.float32)
        covariance = THUMBNAIL_SIDE**2 * (a @ b.T).astype(np.float64)  # a product is below 2**24, so exact in float32
        covariance -= np.outer(self.sums[some], self.sums[rest])
        return covariance >= np.maximum(MIN_CORRELATION * np.outer(self.spreads[some], self.spreads[rest]), 0.5)
