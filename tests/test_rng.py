"""Randomness as a function of the place: the same anywhere, even, and without ties between places."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco import rng
from moco.rng import fold, mix, permute, uniform

N = 100_000
SPAN = 2**64


def uneven(counts: np.ndarray, expected: float) -> float:
    """Pearson's chi-square in standard deviations above its mean: above 5 about once in a million, if all is even."""
    freedom = counts.size - 1
    return (float(((counts - expected) ** 2).sum() / expected) - freedom) / math.sqrt(2 * freedom)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """In standard deviations of what independent numbers give."""
    return abs(float(np.corrcoef(a, b)[0, 1])) * math.sqrt(len(a))


# --- fold ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((0,), [1, 0, 0]),
        ((0, 0), [2, 0, 0, 0, 0]),
        ((1, 2, 3), [3, 1, 0, 2, 0, 3, 0]),
        ((SPAN - 1, 2**40 + 9), [2, 2**32 - 1, 2**32 - 1, 9, 256]),
    ],
)
def test_a_seed_is_numpys_of_the_number_of_values_and_their_32_bit_words(place: tuple[int, ...], words: list[int]):
    """A change of these makes every old run go on differently when it is resumed."""
    assert fold(*place) == int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


@given(
    a=st.lists(st.integers(0, 3) | st.integers(0, SPAN - 1), min_size=1, max_size=5),
    b=st.lists(st.integers(0, 3) | st.integers(0, SPAN - 1), min_size=1, max_size=5),
)
@settings(max_examples=300, deadline=None)
def test_two_places_have_two_seeds(a: list[int], b: list[int]):
    assert (fold(*a) == fold(*b)) == (a == b)


@pytest.mark.parametrize(
    ("a", "b"), [((1, 2), (1, 2, 0)), ((5 + 2**32,), (5, 1)), ((0,), (0, 0)), ((1, 2**32), (1, 0, 1))]
)
def test_places_that_agree_in_32_bit_words_have_different_seeds(a: tuple[int, ...], b: tuple[int, ...]):
    assert fold(*a) != fold(*b)


@pytest.mark.parametrize("place", [(-1,), (0, -1), (SPAN,), (0, SPAN)])
def test_a_place_outside_of_64_bits_is_refused(place: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"2\*\*64"):
        fold(*place)


def test_every_bit_of_a_seed_is_set_half_of_the_time():
    bits = np.array([fold(0, place) for place in range(2000)], dtype=np.uint64)
    ones = ((bits[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).sum(axis=0).astype(int)
    assert np.abs(ones - 1000).max() < 5 * math.sqrt(2000 / 4)


def test_mix_takes_no_two_words_to_one():
    """Both of its multipliers are odd, and a shifted exclusive or can be undone: so it is undone here."""
    words = np.random.default_rng(0).integers(0, SPAN, 1000, dtype=np.uint64)

    def unshift(x: np.ndarray, by: int) -> np.ndarray:
        out = x
        for _ in range(64 // by):
            out = x ^ (out >> np.uint64(by))
        return out

    x = unshift(mix(words), 31) * np.uint64(pow(0x94D049BB133111EB, -1, SPAN))
    x = unshift(x, 27) * np.uint64(pow(0xBF58476D1CE4E5B9, -1, SPAN))
    assert np.array_equal(unshift(x, 30), words)


# --- uniform ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [0, 1, 63, 64, 127])
@pytest.mark.parametrize("start", [0, 10**9, 2**40])
def test_numbers_are_evenly_spread_over_the_images(slot: int, start: int):
    numbers = uniform(3, 1, np.arange(start, start + N), slot)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(uneven(np.bincount((numbers * 1000).astype(int), minlength=1000), N / 1000)) < 5
    gap = np.abs(np.sort(numbers) - (np.arange(N) + 0.5) / N).max() + 0.5 / N  # Kolmogorov and Smirnov
    assert gap < 2.2 / math.sqrt(N)  # exceeded once in 8,000 times


def test_numbers_are_evenly_spread_over_the_slots_of_an_image():
    numbers = np.array([uniform(0, 0, np.array([7]), slot)[0] for slot in range(2000)])
    assert abs(uneven(np.bincount((numbers * 50).astype(int), minlength=50), 40)) < 5


def test_numbers_are_evenly_spread_over_the_epochs_of_an_image():
    numbers = np.array([uniform(0, epoch, np.array([7]), 3)[0] for epoch in range(2000)])
    assert abs(uneven(np.bincount((numbers * 50).astype(int), minlength=50), 40)) < 5


def test_the_low_bits_are_as_even_as_the_high_ones():
    words = (uniform(0, 0, np.arange(N), 0) * 2**53).astype(np.uint64)
    assert abs(uneven(np.bincount((words & np.uint64(0xFF)).astype(int), minlength=256), N / 256)) < 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 1)),
        ((0, 0, 0, 0), (0, 0, 0, 64)),
        ((0, 0, 0, 0), (0, 0, 1, 0)),
        ((0, 0, 0, 1), (0, 0, 1, 0)),
        ((0, 0, 0, 0), (0, 1, 0, 0)),
        ((0, 0, 0, 0), (1, 0, 0, 0)),
        ((0, 1, 0, 0), (1, 0, 0, 0)),
    ],
    ids=["slot", "view", "image", "slot-for-image", "epoch", "seed", "epoch-for-seed"],
)
def test_numbers_of_neighbouring_places_are_independent(one: tuple[int, ...], other: tuple[int, ...]):
    """`one` and `other` are (seed, epoch, first image, slot)."""
    a, b = (uniform(seed, epoch, np.arange(first, first + N), slot) for seed, epoch, first, slot in (one, other))
    assert correlation(a, b) < 5
    assert correlation((a - 0.5) ** 2, (b - 0.5) ** 2) < 5
    pairs = np.bincount((a * 32).astype(int) * 32 + (b * 32).astype(int), minlength=1024)
    assert abs(uneven(pairs, N / 1024)) < 5


def test_a_planted_tie_between_slots_is_seen():
    """The checks above do find what they look for: here with every tenth number shared."""
    a, b = uniform(0, 0, np.arange(N), 0), uniform(0, 0, np.arange(N), 1)
    b[::10] = a[::10]
    assert correlation(a, b) > 5


@given(
    ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=20),
    order=st.randoms(use_true_random=False),
    slot=st.integers(0, 127),
)
@settings(max_examples=50, deadline=None)
def test_the_random_number_of_an_image_does_not_depend_on_the_other_images(ids: list[int], order, slot: int):
    alone = {one: float(uniform(1, 2, np.array([one]), slot)[0]) for one in ids}
    order.shuffle(ids)
    assert uniform(1, 2, np.array(ids), slot).tolist() == [alone[one] for one in ids]


def test_ids_of_any_integer_type_have_the_same_numbers():
    ids = [0, 5, 200]
    numbers = [
        uniform(0, 0, np.array(ids, dtype=kind), 0).tolist() for kind in (np.int64, np.uint8, np.int32, np.uint64)
    ]
    assert all(one == numbers[0] for one in numbers)


# --- permuted -----------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 3000), key=st.integers(0, SPAN - 1))
@settings(max_examples=60, deadline=None)
def test_a_permutation_takes_each_place_to_its_own(n: int, key: int):
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


@given(n=st.integers(1, 2**62), key=st.integers(0, SPAN - 1))
@settings(max_examples=60, deadline=None)
def test_places_of_any_range_stay_inside_and_apart(n: int, key: int):
    places = np.unique(np.linspace(0, n - 1, 50).astype(np.int64).clip(0, n - 1))
    sent = permute(places, n, key)
    assert sent.min() >= 0
    assert sent.max() < n
    assert len(np.unique(sent)) == len(places)


@pytest.mark.parametrize("n", [10**9, 2**40])
def test_each_place_is_permuted_independently_of_the_other_places_asked_for(n: int):
    places = np.array([0, 1, n // 2, n - 1])
    assert permute(places, n, 5).tolist() == [int(permute(places[[i]], n, 5)[0]) for i in range(4)]


def test_no_place_and_one_place_are_permuted_too():
    assert permute(np.array([], dtype=np.int64), 10, 0).tolist() == []
    assert permute(np.array([0]), 1, 0).tolist() == [0]


def test_different_keys_give_different_orders():
    orders = {tuple(permute(np.arange(50), 50, key)) for key in range(300)}
    assert len(orders) == 300


@pytest.mark.parametrize("n", [12, 1000, 10**9, 2**40])
def test_over_the_keys_every_place_is_as_likely_as_any_other(n: int):
    sent = np.array([permute(np.array([0, n // 2, n - 1]), n, key) for key in range(1500)])
    deviation = 1 / math.sqrt(12 * 1500)
    assert (np.abs(((sent + 0.5) / n).mean(axis=0) - 0.5) < 5 * deviation).all()
    for column in sent.T:
        assert abs(uneven(np.bincount((column * 12 // n).astype(int), minlength=12), 125)) < 5


def orders_of(n: int, keys: int) -> float:
    """How unevenly the orders of n places are spread over the keys."""
    orders = Counter(tuple(permute(np.arange(n), n, key)) for key in range(keys))
    counts = np.array([*orders.values(), *[0] * (math.factorial(n) - len(orders))])
    return uneven(counts, keys / math.factorial(n))


@pytest.mark.parametrize("n", [3, 4, 5])
def test_over_the_keys_every_order_of_a_few_places_is_equally_likely(n: int):
    assert abs(orders_of(n, 700)) < 5


def test_halves_of_two_bits_are_seen_in_the_orders_of_five_places(monkeypatch):
    monkeypatch.setattr(rng, "MIN_HALF", 2)
    monkeypatch.setattr(rng, "ROUNDS", 6)
    assert orders_of(5, 3000) > 5


def pairs_of_places(keys: int) -> float:
    """How unevenly places 0 and 8 of 64 are sent, as a pair."""
    sent = np.array([permute(np.array([0, 8]), 64, key) for key in range(keys)])
    counts = np.bincount(sent[:, 0] * 64 + sent[:, 1], minlength=64 * 64)[~np.eye(64, dtype=bool).ravel()]
    return uneven(counts, keys / (64 * 63))


@pytest.mark.slow
def test_over_the_keys_pairs_of_places_are_evenly_spread():
    assert abs(pairs_of_places(20_000)) < 5


def test_too_few_rounds_are_seen_in_the_pairs_of_places(monkeypatch):
    monkeypatch.setattr(rng, "ROUNDS", 3)
    assert pairs_of_places(8_000) > 5


def test_an_order_does_not_keep_neighbours_together():
    order = permute(np.arange(10_000), 10_000, 1)
    assert (np.abs(np.diff(order)) == 1).sum() < 20  # 2 are expected
    assert correlation(order[:-1], order[1:]) < 5
    assert correlation(order, np.arange(10_000)) < 5


@pytest.mark.parametrize(("places", "n"), [([0], 0), ([0], -5), ([10], 10), ([-1], 10), ([0], 2**62 + 1)])
def test_places_and_ranges_that_do_not_fit_are_refused(places: list[int], n: int):
    with pytest.raises(ValueError, match="expected"):
        permute(np.array(places), n, 0)
