"""Randomness as a function of the place in a run, so that a run's state has no generator in it.

The same (seed, place) gives the same numbers on any machine, in any worker, in any order, after any restart.
"""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8  # of the Feistel network; with 6, pairs of places were visibly uneven at n = 64 (tests/test_rng.py)
MIN_HALF = 3  # bits; with 2, no number of rounds makes the permutations of 5 or 6 places equally likely
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: the increment of SplitMix64


def fold(seed: int, *path: int) -> int:
    """A 64-bit seed for the place `path` (an epoch, a step, a sample, a rank) of the run seeded with `seed`.

    Raises:
        ValueError: a seed or a part of the path outside of [0, 2**64).
    """
    values = (seed, *path)
    if not all(0 <= value < 2**64 for value in values):
        raise ValueError(f"expected a seed and a path in [0, 2**64), got {values}")
    # Two words a value and their number first: SeedSequence by itself takes (1, 2) and (1, 2, 0) for the same.
    words = [len(values), *(word for value in values for word in (value & 0xFFFFFFFF, value >> 32))]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, OOPSLA 2014): a bijection of 64-bit words that flips half the bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(seed: int, epoch: int, ids: NDArray[np.integer], slot: int | NDArray[np.integer]) -> NDArray[np.float64]:
    """For each image of `ids` [N] a number in [0, 1): the `slot`-th random number of it in `epoch`.

    A counter-based generator: SplitMix64's finalizer over the counter (id, slot), keyed by (seed, epoch). `ids` and an
    array of slots are broadcast against each other.
    """
    key = np.uint64(fold(seed, epoch))
    with np.errstate(over="ignore"):  # 64-bit words wrap: that is the arithmetic wanted
        counter = (np.asarray(slot).astype(np.uint64) + np.uint64(1)) * _GOLDEN
        word = mix(mix(np.asarray(ids).astype(np.uint64) * _GOLDEN + key) + counter)
        word = mix(word ^ key)
    return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permuted(places: NDArray[np.integer], n: int, key: int) -> NDArray[np.int64]:
    """Where the permutation `key` of [0, n) sends each of `places`, computed place by place: no array of n is made.

    A Feistel network over the smallest even number of bits that holds n (at least 6), walked along its cycles until the
    value falls into [0, n) (Black and Rogaway, CT-RSA 2002): less than 4 rounds of walking on average, 64 / n below 16.

    Raises:
        ValueError: n outside of [1, 2**62], or places outside of [0, n).
    """
    places = np.asarray(places)
    if not 1 <= n <= 2**62:
        raise ValueError(f"expected n in [1, 2**62], got {n}")
    if places.size and not (places.min() >= 0 and places.max() < n):
        raise ValueError(f"expected places in [0, {n}), got {places.min()}..{places.max()}")
    half = np.uint64(max(MIN_HALF, ((n - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = [np.uint64(fold(key, round_)) for round_ in range(ROUNDS)]
    value, walking = places.astype(np.uint64), np.ones(places.shape, dtype=bool)
    with np.errstate(over="ignore"):
        while walking.any():
            left, right = value[walking] >> half, value[walking] & mask
            for round_key in keys:
                left, right = right, left ^ (mix(right * _GOLDEN + round_key) & mask)
            value[walking] = (left << half) | right
            walking = value >= n
    return value.astype(np.int64)
