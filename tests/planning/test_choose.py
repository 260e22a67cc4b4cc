"""The rules that fit a run to a time."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moco.planning.budget import parse_budget
from moco.planning.choose import MAX_EPOCHS, ImageCost, choose_batch, choose_scale, choose_shrink, memory_of
from moco.recipe import RecipeError
from moco.recipes.auto import NETWORK_SIZES

positive = st.floats(1e-6, 10)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(step=positive, first=st.floats(0, 10), seconds=st.floats(0.1, 1e6), images=st.integers(16, 10**9))
def test_the_images_that_are_affordable_take_the_time_that_is_given(step, first, seconds, images):
    cost = ImageCost(step, first)
    seen = cost.count_affordable(seconds, images)
    assert seen <= MAX_EPOCHS * images
    if seen < MAX_EPOCHS * images:
        assert cost.seconds(seen, images) == pytest.approx(seconds)
    else:
        assert cost.seconds(seen, images) <= seconds * (1 + 1e-9)


def test_an_image_is_read_once_if_it_stays_in_memory():
    cost = ImageCost(step=0.001, first=0.1)
    assert cost.seconds(50, images=100) == pytest.approx(50 * 0.101)
    assert cost.seconds(1000, images=100) == pytest.approx(1000 * 0.001 + 100 * 0.1)


@pytest.mark.parametrize(
    ("seen", "images", "chosen"),
    [
        ([("tiny", 500_000), ("small", 260_000), ("medium", 90_000)], 10**5, "small"),  # medium would see too few
        ([("tiny", 500_000), ("small", 200_000), ("medium", 90_000)], 10**5, "tiny"),
        ([("tiny", 10**8), ("small", 10**8), ("medium", 10**8), ("large", 10**8)], 10**7, "large"),
        ([("tiny", 9_000), ("small", 8_900), ("medium", 8_000), ("large", 2_000)], 10**5, "medium"),  # reading-bound
        ([("tiny", 80_000), ("small", 20_000), ("medium", 19_000)], 100, "small"),  # 200 epochs fit
        ([("tiny", 50)], 1000, "tiny"),
    ],
)
def test_the_largest_network_that_sees_enough_images_is_chosen(seen, images, chosen):
    assert choose_scale(seen, images) == chosen


@pytest.mark.parametrize(
    ("seen", "images", "batch"), [(10**7, 10**5, 128), (64 * 2000, 10**5, 64), (100, 10**5, 32), (10**7, 40, 8)]
)
def test_the_mini_batch_leaves_enough_steps(seen, images, batch):
    assert choose_batch("tiny", seen, images) == batch
    assert batch <= NETWORK_SIZES["tiny"].batch


def test_images_are_kept_as_large_as_memory_allows_and_not_if_they_are_small():
    assert choose_shrink(3000, 64, 1000, memory_of(1000, 128)) == 128
    assert choose_shrink(3000, 64, 1000, memory_of(1000, 128) - 1) == 96
    assert choose_shrink(3000, 64, 1000, memory_of(1000, 80) - 1) is None
    assert choose_shrink(60, 64, 1000, 10**12) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("10min", 600),
        ("8h", 28800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
        (300, 300),
    ],
)
def test_a_budget_is_a_number_with_units(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "ten minutes", "10 m", "-5m", "5x", "m", "10m!", "1e3s"])
def test_other_text_is_refused_with_what_was_expected(text):
    with pytest.raises(RecipeError, match="expects a time such as 90s, 10m, 8h or 1h30m"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["0s", "29s", 0, -1, float("nan"), float("inf")])
def test_a_budget_in_which_nothing_can_be_done_is_refused(text):
    with pytest.raises(RecipeError, match="at least 30 s"):
        parse_budget(text)
