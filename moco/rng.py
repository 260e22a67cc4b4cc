"""Randomness as a function of the place in a run, so that a run's state has no generator in it.

The same (seed, place) gives the same numbers on any machine, in any worker, in any order, after any restart.
"""

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: the increment of SplitMix64


def fold(seed: int, *path: int) -> int:
    """A 64-bit seed for the place `path` (an epoch, a step, a sample, a rank) of the run seeded with `seed`."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0])


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al., OOPSLA 2014): a bijection of 64-bit words that flips half the bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(seed: int, epoch: int, ids: NDArray[np.integer], slot: int) -> NDArray[np.float64]:
    """For each image of `ids` [N] a number in [0, 1): the `slot`-th die that is cast for it in `epoch`.

    A counter-based generator: SplitMix64's finalizer over the counter (id, slot), keyed by (seed, epoch).
    """
    key = np.uint64(fold(seed, epoch))
    with np.errstate(over="ignore"):  # 64-bit words wrap: that is the arithmetic wanted
        word = mix(mix(np.asarray(ids).astype(np.uint64) * _GOLDEN + key) + np.uint64(slot + 1) * _GOLDEN)
        word = mix(word ^ key)
    return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permuted(places: NDArray[np.integer], n: int, key: int) -> NDArray[np.int64]:
    """Where the permutation `key` of [0, n) sends each of `places`, computed place by place: no array of n is made.

    A Feistel network of 6 rounds over the smallest even number of bits that holds n, walked along its cycles until the
    value falls into [0, n) (Black and Rogaway, CT-RSA 2002): less than 4 rounds of walking on average.
    """
    places = np.asarray(places)
    if n < 1 or (len(places) and not (0 <= places.min() and places.max() < n)):
        raise ValueError(f"expected places in [0, {n}), got {places.min()}..{places.max()}" if n > 0 else f"n is {n}")
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = [np.uint64(fold(key, round_)) for round_ in range(6)]
    value, walking = places.astype(np.uint64), np.ones(places.shape, dtype=bool)
    with np.errstate(over="ignore"):
        while walking.any():
            left, right = value[walking] >> half, value[walking] & mask
            for round_key in keys:
                left, right = right, left ^ (mix(right * _GOLDEN + round_key) & mask)
            value[walking] = (left << half) | right
            walking = value >= n
    return value.astype(np.int64)
