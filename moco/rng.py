"""Random numbers as a function of (seed, place in the run), so that no generator has to be saved or resumed.

The same (seed, place) gives the same numbers on any machine, in any worker, in any order, after any restart.
"""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8  # of the Feistel network; with 6, pairs of places were visibly uneven at n = 64 (tests/test_rng.py)
MIN_HALF = 3  # bits; with 2, no number of rounds makes the permutations of 5 or 6 places equally likely
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: the increment of SplitMix64


def fold(seed: int, *path: int) -> int:
    """Derive a 64-bit seed from `seed` for one place in the run. `path`: epoch, step, sample, rank or the like.

    Raises:
        ValueError: a seed or a part of the path outside of [0, 2**64).
    """
    values = (seed, *path)
    if not all(0 <= value < 2**64 for value in values):
        raise ValueError(f"expected a seed and a path in [0, 2**64), got {values}")
    # Two 32-bit words per value, after their number: SeedSequence alone does not tell (1, 2) from (1, 2, 0).
    words = [len(values), *(word for value in values for word in (value & 0xFFFFFFFF, value >> 32))]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, OOPSLA 2014): a bijection of 64-bit words that flips half the bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(seed: int, epoch: int, ids: NDArray[np.integer], slot: int | NDArray[np.integer]) -> NDArray[np.float64]:
    """A number in [0, 1) for each image of `ids` [N]: its `slot`-th random number in `epoch`.

    A counter-based generator: SplitMix64's finalizer over the counter (id, slot), keyed by (seed, epoch). `ids` and an
    array of slots are broadcast against each other.
    """
    key = np.uint64(fold(seed, epoch))
    with np.errstate(over="ignore"):  # 64-bit words are meant to wrap
        counter = (np.asarray(slot).astype(np.uint64) + np.uint64(1)) * _GOLDEN
        word = mix(mix(np.asarray(ids).astype(np.uint64) * _GOLDEN + key) + counter)
        word = mix(word ^ key)
    return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(places: NDArray[np.integer], n: int, key: int) -> NDArray[np.int64]:
    """Apply the pseudorandom permutation `key` of [0, n) to `places`, without an array of n numbers.

    A Feistel network over the smallest even number of bits that holds n (at least 6), applied again until the value is
    in [0, n) (cycle walking; Black and Rogaway, CT-RSA 2002): fewer than 4 times on average, 64 / n for n below 16.

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
