"""Images that are nearly the same: another size, compression or brightness of one picture, frames of one scene.

A picture is known by 64 signs of its lowest frequencies (a perceptual hash), and by its greys at 16 x 16 places. Two
are near when few signs differ and the greys go together; the first finds pairs quickly, the second confirms them.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int64, UInt8, UInt64
from PIL import Image

SIDE, PLACES = 32, 16  # the picture whose frequencies are taken, and places that are compared, per side
SIGNS = 7  # that may differ, of 64: then one of 8 bytes of them is the same, which is where pairs are looked for
TOGETHER = 0.98  # least correlation of the greys
BLOCK = 2**22  # pairs at once


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
    unique, first, same = np.unique(signs, return_index=True, return_inverse=True)
    pairs = np.concatenate(
        [
            np.stack([first[same], np.arange(len(signs))], axis=1),  # each with the first that has the same signs
            *(first[found] for found in _few_differ(unique)),
        ]
    )
    return groups(pairs[_go_together(greys, pairs)], len(signs))


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


def _few_differ(signs: UInt64[np.ndarray, "n"]) -> Iterator[Int64[np.ndarray, "m 2"]]:
    """All pairs of which at most SIGNS signs differ, some more than once."""
    for byte in range(8):
        key = (signs >> np.uint64(8 * byte)) & np.uint64(255)
        order = np.argsort(key, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            rows = max(BLOCK // len(members), 1)
            for start in range(0, len(members), rows):
                block = members[start : start + rows]
                differing = np.bitwise_count(signs[block][:, None] ^ signs[members][None])
                a, b = np.nonzero(differing <= SIGNS)
                later = a + start < b
                yield np.stack([block[a[later]], members[b[later]]], axis=1)


def _go_together(greys: UInt8[np.ndarray, "n 16 16"], pairs: Int64[np.ndarray, "m 2"]) -> np.ndarray:
    """For each pair, whether its greys are correlated; those of two images of one colour are not."""
    return np.concatenate([_correlation(greys[part]) for part in np.split(pairs, range(2**16, len(pairs), 2**16))])


def _correlation(greys: UInt8[np.ndarray, "m 2 16 16"]) -> np.ndarray:
    values: Float[np.ndarray, "m 2 256"] = greys.reshape(len(greys), 2, -1).astype(np.float32)
    values -= values.mean(axis=2, keepdims=True)
    product, squares = (values[:, 0] * values[:, 1]).sum(axis=1), np.square(values).sum(axis=2)
    return product >= TOGETHER * np.maximum(np.sqrt(squares.prod(axis=1)), 1e-6)
