"""The random parameters of views: against the distributions of torchvision's transforms."""

import itertools

import numpy as np
import pytest
import torch
from torchvision import transforms as T

from moco.data.augment.random_parameters import (
    OPS,
    TRIES,
    Choice,
    crop_boxes,
    flips,
    look,
    quarter_turns,
    random_numbers,
    vertical_flips,
)
from moco.recipe import Jitter, View
from moco.recipes.demo import DEMO_VIEW
from moco.recipes.moco_v2 import V2_VIEW

MANY = 4000


def boxes_of(view: View, height: int, width: int, *, count: int = MANY, seed: int = 0) -> np.ndarray:
    numbers = random_numbers(seed, 0, ids=np.arange(count), view_index=0)
    return crop_boxes(view, numbers, heights=np.full(count, height), widths=np.full(count, width))


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two samples differ in distribution: Kolmogorov-Smirnov test with a false alarm rate of 1e-4."""
    everything = np.sort(np.concatenate([a, b]))
    gap = np.abs([np.searchsorted(np.sort(x), everything, "right") / len(x) for x in (a, b)])
    return float(np.abs(gap[0] - gap[1]).max()) > np.sqrt(-np.log(1e-4 / 2) / 2) * np.sqrt(1 / len(a) + 1 / len(b))


def uniform_grid(low: float, high: float, count: int = 100_000) -> np.ndarray:
    return low + (high - low) * (np.arange(count) + 0.5) / count


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_no_two_random_choices_share_a_slot():
    slots = [*range(Choice.AREA, Choice.AREA + TRIES), *range(Choice.RATIO, Choice.RATIO + TRIES)]
    slots += [choice for choice in Choice if choice not in (Choice.AREA, Choice.RATIO)]
    assert len(slots) == len(set(slots))
    assert max(slots) < OPS


def test_the_random_numbers_of_an_image_do_not_depend_on_other_images():
    ids = np.array([7, 3, 1_000_000_007, 0, 12])
    together = random_numbers(5, 2, ids=ids, view_index=1).of(Choice.HUE)
    apart = [random_numbers(5, 2, ids=ids[[i]], view_index=1).of(Choice.HUE)[0] for i in range(len(ids))]
    assert together.tolist() == apart


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_another_seed_epoch_or_view_has_other_random_numbers(other: tuple[int, int, int]):
    ids = np.arange(1000)
    here = random_numbers(0, 0, ids=ids, view_index=0).of(Choice.TOP)
    there = random_numbers(other[0], other[1], ids=ids, view_index=other[2]).of(Choice.TOP)
    assert abs(np.corrcoef(here, there)[0, 1]) < 0.12  # 3.8 standard errors


# --- where to crop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 400), (500, 200)])
@pytest.mark.parametrize("area", [(0.2, 1.0), (0.08, 1.0)])
def test_crops_are_drawn_as_torchvision_draws_them(size: tuple[int, int], area: tuple[float, float]):
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    reference = np.array([T.RandomResizedCrop.get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(MANY)])
    ours = boxes_of(View(crop_area=area), *size)
    for measure in MEASURES.values():
        assert not differ(measure(ours, *size), measure(reference, *size))


MEASURES = {
    "area": lambda box, height, width: box[:, 2] * box[:, 3] / (height * width),
    "ratio": lambda box, height, width: box[:, 3] / box[:, 2],
    "top": lambda box, height, width: box[:, 0],
    "left": lambda box, height, width: box[:, 1],
    "top in its room": lambda box, height, width: box[:, 0] / np.maximum(height - box[:, 2], 1),
    "left in its room": lambda box, height, width: box[:, 1] / np.maximum(width - box[:, 3], 1),
}


def test_the_statistical_test_finds_a_wrong_smallest_area_and_a_ratio_drawn_without_logarithm():
    right, wrong = boxes_of(View(), 300, 300), boxes_of(View(crop_area=(0.3, 1.0)), 300, 300, seed=1)
    assert differ(MEASURES["area"](right, 300, 300), MEASURES["area"](wrong, 300, 300))
    ratio = np.random.default_rng(0).uniform(3 / 4, 4 / 3, MANY)
    assert differ(MEASURES["ratio"](right, 300, 300), ratio)


@pytest.mark.parametrize(
    ("size", "area", "ratio"),  # such that no draw can fit
    [
        ((10, 400), (0.5, 1.0), (3 / 4, 4 / 3)),  # too wide
        ((400, 10), (0.5, 1.0), (3 / 4, 4 / 3)),  # too high
        ((60, 70), (1.0, 1.0), (1.2, 1.3)),  # a little too high
        ((64, 64), (1.0, 1.0), (3 / 4, 4 / 3)),  # all of it, or nothing fits
    ],
)
def test_the_fallback_is_torchvisions_central_crop(
    size: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float]
):
    reference = {T.RandomResizedCrop.get_params(torch.empty(3, *size), list(area), list(ratio)) for _ in range(20)}
    ours = {tuple(box) for box in boxes_of(View(crop_area=area, crop_ratio=ratio), *size, count=20).tolist()}
    assert len(ours) == 1
    assert reference == ours


def test_images_of_many_sizes_are_cropped_as_each_would_be_alone():
    rng = np.random.default_rng(0)
    heights, widths, ids = rng.integers(1, 500, 200), rng.integers(1, 500, 200), rng.integers(0, 2**40, 200)
    together = crop_boxes(V2_VIEW, random_numbers(3, 4, ids=ids, view_index=1), heights=heights, widths=widths)
    for i in range(200):
        alone = random_numbers(3, 4, ids=ids[[i]], view_index=1)
        assert (crop_boxes(V2_VIEW, alone, heights=heights[[i]], widths=widths[[i]])[0] == together[i]).all()
    assert (together[:, :2] >= 0).all()
    assert (together[:, 0] + together[:, 2] <= heights).all()
    assert (together[:, 1] + together[:, 3] <= widths).all()
    assert (together[:, 2:] > 0).all()


def test_an_area_above_1_is_uniform_and_never_refused():
    area = MEASURES["area"](boxes_of(View(crop_area=(0.35, 1.6)), 320, 320), 320, 320)
    assert not differ(area, uniform_grid(0.35, 1.6))


def test_a_crop_larger_than_the_image_contains_all_of_it_at_a_random_position():
    box = boxes_of(View(crop_area=(2.0, 3.0)), 100, 100)
    assert (box[:, :2] <= 0).all()
    assert (box[:, :2] + box[:, 2:] >= 100).all()
    for axis in (0, 1):
        share = (-box[:, axis] + np.random.default_rng(axis).random(MANY)) / (box[:, axis + 2] - 100 + 1)
        assert not differ(share, uniform_grid(0, 1))


# --- crops --------------------------------------------------------------------------------------------------------


def fraction_is(share: np.ndarray, p: float) -> bool:
    """Whether the mean of true and false agrees with p: within four standard errors."""
    return abs(share.mean() - p) <= 4 * np.sqrt(p * (1 - p) / len(share))


FULL_VIEW = V2_VIEW.model_copy(update={"solarize": 0.3, "flip": 0.4})


def test_grey_blur_solarize_jitter_and_flip_happen_as_often_as_they_should():
    numbers = random_numbers(0, 0, ids=np.arange(10 * MANY), view_index=0)
    seen = look(FULL_VIEW, numbers)
    assert fraction_is(seen.grey, 0.2)
    assert fraction_is(seen.sigma > 0, 0.5)
    assert fraction_is(seen.solarize, 0.3)
    assert fraction_is(seen.order[:, 0] >= 0, 0.8)
    assert fraction_is(flips(FULL_VIEW, numbers), 0.4)
    assert not fraction_is(seen.grey, 0.22)  # the test can tell


def test_vertical_flips_and_quarter_turns_happen_as_often_as_they_should():
    numbers = random_numbers(0, 0, ids=np.arange(10 * MANY), view_index=0)
    view = View(flip_vertical=0.3, rotate90=0.6)
    assert fraction_is(vertical_flips(view, numbers), 0.3)
    turns = quarter_turns(view, numbers)
    for number, share in ((0, 0.4), (1, 0.2), (2, 0.2), (3, 0.2)):
        assert fraction_is(turns == number, share)
    assert fraction_is(quarter_turns(View(rotate90=1.0), numbers) == 0, 0.0)
    assert not vertical_flips(View(), numbers).any()
    assert not quarter_turns(View(), numbers).any()


def test_probabilities_0_and_1_mean_never_and_always():
    view = View(jitter=Jitter(p=1.0), grey=0.0, blur=1.0, flip=0.0, solarize=1.0)
    numbers = random_numbers(0, 0, ids=np.arange(MANY), view_index=0)
    seen = look(view, numbers)
    assert (seen.order >= 0).all()
    assert (seen.sigma > 0).all()
    assert seen.solarize.all()
    assert not seen.grey.any()
    assert not flips(view, numbers).any()


def test_factors_are_uniform_and_hue_is_around_0():
    jitter = Jitter(brightness=0.4, contrast=0.3, saturation=1.5, hue=0.1)
    seen = look(
        View(jitter=jitter, blur=1.0, blur_sigma=(0.1, 2.0)), random_numbers(0, 0, ids=np.arange(MANY), view_index=0)
    )
    for op, (low, high) in enumerate([(0.6, 1.4), (0.7, 1.3), (0.0, 2.5), (-0.1, 0.1)]):
        assert not differ(seen.factors[:, op], uniform_grid(low, high))
    assert not differ(seen.sigma, uniform_grid(0.1, 2.0))


def test_all_24_orders_of_jitter_are_equally_likely():
    seen = look(View(jitter=Jitter(p=1.0)), random_numbers(0, 0, ids=np.arange(24 * 500), view_index=0))
    _, counts = np.unique(seen.order, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 500.0) ** 2 / 500).sum() < 58  # chi squared with 23 degrees of freedom: p = 1e-4


def test_random_numbers_of_different_choices_are_independent():
    numbers = random_numbers(0, 0, ids=np.arange(MANY), view_index=0)
    rolls = [numbers.of(choice) for choice in Choice] + [
        random_numbers(0, 0, ids=np.arange(MANY), view_index=1).of(Choice.GREY)
    ]
    for a, b in itertools.combinations(rolls, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(MANY)


def test_a_jitter_of_0_is_not_applied():
    seen = look(DEMO_VIEW, random_numbers(0, 0, ids=np.arange(MANY), view_index=0))
    assert set(np.unique(seen.order)) == {-1, 0, 1}  # brightness and contrast
