"""Images that are nearly the same: another size, compression or brightness of one picture, frames of one scene.

A picture is known by 64 signs of its lowest frequencies (a perceptual hash), and by its greys at 16 x 16 places. Two
are near when few signs differ and the greys go together; the first finds pairs quickly, the second confirms them.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8, UInt64
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
    pairs = [
        pair
        for byte in range(8)
        for bucket in _buckets((signs >> np.uint64(8 * byte)) & np.uint64(255))
        for pair in _joined(bucket, signs, greys.reshape(len(greys), -1))
    ]
    return groups(np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs]), len(signs))


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


def _buckets(keys: UInt64[np.ndarray, "n"]) -> list[Int64[np.ndarray, "m"]]:
    """Where equal keys are, two or more each."""
    order = np.argsort(keys, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    return [part for part in parts if len(part) > 1]


def _joined(
    rest: Int64[np.ndarray, "m"], signs: UInt64[np.ndarray, "n"], greys: UInt8[np.ndarray, "n 256"]
) -> Iterator[Int64[np.ndarray, "k 2"]]:
    """Pairs that join what of `rest` hangs together: fewer than m, however many are near.

    A group grows from its first: what is near to one of it leaves the rest, and is compared with the rest in its turn.
    """
    if len(rest) <= SMALL:  # most have no such neighbour; this finds them at once
        rest = rest[_few_differ(signs[rest], signs[rest]).sum(axis=1) > 1]
    while len(rest) > 1:
        first, growing, rest = rest[0], [rest[:1]], rest[1:]
        while growing and len(rest):
            some, rows = growing.pop(), max(BLOCK // len(rest), 1)
            if len(some) > rows:
                growing.append(some[rows:])
            is_near = _any_near(some[:rows], rest, signs, greys)
            if is_near.any():
                growing.append(rest[is_near])
                yield np.stack([np.full(len(growing[-1]), first), growing[-1]], axis=1)
                rest = rest[~is_near]


def _any_near(
    some: Int64[np.ndarray, "k"],
    rest: Int64[np.ndarray, "m"],
    signs: UInt64[np.ndarray, "n"],
    greys: UInt8[np.ndarray, "n 256"],
) -> Bool[np.ndarray, "m"]:
    """For each of the rest, whether it is near to one of some."""
    few = _few_differ(signs[some], signs[rest])
    found = few.any(axis=0)
    for part in np.split(places := np.flatnonzero(found), range(PART, len(places), PART)):
        if len(part):
            found[part] = (few[:, part] & _go_together(greys[some], greys[rest[part]])).any(axis=0)
    return found


def _few_differ(some: UInt64[np.ndarray, "k"], rest: UInt64[np.ndarray, "m"]) -> Bool[np.ndarray, "k m"]:
    return np.bitwise_count(some[:, None] ^ rest) <= SIGNS


def _go_together(some: UInt8[np.ndarray, "k 256"], rest: UInt8[np.ndarray, "m 256"]) -> Bool[np.ndarray, "k m"]:
    """Whether greys are correlated; those of an image of one colour are not, with any."""
    a, b = some.astype(np.float32), rest.astype(np.float32)
    n, product = a.shape[1], (a @ b.T).astype(np.float64)  # whole numbers below 2**24, so exact
    (a_sum, a_spread), (b_sum, b_spread) = ((x.sum(axis=1, dtype=np.float64), _spread(x)) for x in (a, b))
    return n * product - np.outer(a_sum, b_sum) >= np.maximum(TOGETHER * np.sqrt(np.outer(a_spread, b_spread)), 0.5)


def _spread(greys: Float[np.ndarray, "m 256"]) -> Float[np.ndarray, "m"]:
    squares = np.einsum("ij,ij->i", greys, greys).astype(np.float64)
    return greys.shape[1] * squares - np.square(greys.sum(axis=1, dtype=np.float64))
