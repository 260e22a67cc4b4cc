"""Views of images with bands: crops as torch's antialiased resize, a blur as SciPy's, changes by their equations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from moco.data.augment import cpu
from moco.data.augment.bands import change_bands, crop_bands, eval_crop_bands
from moco.data.augment.colour import BRIGHTNESS, CONTRAST, Look
from moco.data.augment.normalize import normalize
from moco.data.augment.random_parameters import random_numbers
from moco.recipe import DataSpec, Jitter, View

IMAGE = np.random.default_rng(0).random((60, 80, 5)).astype(np.float32)
SQUARE = IMAGE[:, :60]
PLAIN = View(crop_area=(0.3, 1.0), jitter=Jitter(p=0), grey=0, flip=0)
ONLY_BANDS = View(crop_area=(1, 1), crop_ratio=(1, 1), grey=0, flip=0,
                  jitter=Jitter(brightness=0, contrast=0, saturation=0, hue=0, p=0.5, bands=0.3))  # fmt: skip


def look_of(order: list[int], *, factor: float = 1.0, sigma: float = 0.0, solarize: bool = False) -> Look:
    steps = np.array([order + [-1] * (4 - len(order))])
    return Look(steps, np.full((1, 4), factor), np.array([False]), False, np.array([sigma]), np.array([solarize]))


@pytest.mark.parametrize(("box", "size"), [((3, 5, 50, 60), 32), ((0, 0, 20, 20), 40), ((10, 20, 33, 17), 24)])
def test_a_crop_is_torchs_antialiased_resize_of_the_box(box: tuple[int, int, int, int], size: int):
    top, left, height, width = box
    part = torch.from_numpy(IMAGE[top : top + height, left : left + width]).permute(2, 0, 1)[None]
    expected = F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    ours = crop_bands(IMAGE, np.array(box), flip=False, size=size)
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    np.testing.assert_array_equal(crop_bands(IMAGE, np.array(box), flip=True, size=size), ours[:, ::-1])


def test_the_evaluation_crop_is_torchs_resize_and_central_cut():
    data = DataSpec(size=24, eval_resize=30, mean=(0,) * 5, std=(1,) * 5, bands=((0, 1),) * 5)
    whole = F.interpolate(torch.from_numpy(IMAGE).permute(2, 0, 1)[None], (30, 40), mode="bilinear", antialias=True)
    np.testing.assert_allclose(eval_crop_bands(IMAGE, data), whole[0, :, 3:27, 8:32].numpy(), atol=2e-6)


def test_outside_of_the_image_all_bands_are_0():
    crop = crop_bands(IMAGE + 1, np.array([-10, -10, 20, 20]), flip=False, size=20)
    assert (crop[:10] == 0).all()
    assert (crop[10:, 10:] >= 1).all()


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_the_blur_is_scipys_gaussian_filter(sigma: float):
    expected = np.stack(
        [gaussian_filter(SQUARE[:, :, c].astype(np.float64), sigma, mode="nearest", truncate=3.0) for c in range(5)], 2
    )
    np.testing.assert_allclose(change_bands(SQUARE, look_of([], sigma=sigma), None), expected, atol=1e-6)


def test_brightness_contrast_solarize_and_bands_follow_their_equations():
    x = SQUARE.astype(np.float64)
    mean = x.mean(axis=(0, 1))
    factors = np.array([0.5, 1.0, 1.5, 0.8, 1.2])
    for look, given, expected in (
        (look_of([BRIGHTNESS], factor=1.4), None, np.clip(1.4 * x, 0, 1)),
        (look_of([CONTRAST], factor=1.4), None, np.clip(mean + 1.4 * (x - mean), 0, 1)),
        (look_of([], solarize=True), None, np.where(x < 0.5, x, 1 - x)),
        (look_of([]), factors, np.clip(factors * x, 0, 1)),
    ):
        np.testing.assert_allclose(change_bands(SQUARE, look, given), expected, atol=1e-6)


def drawn_view(view: View, ids: list[int], *, bands: int = 5) -> cpu.DrawnView:
    return cpu.DrawnView(view, random_numbers(1, 2, ids=np.array(ids), view_index=1, bands=bands))


def test_a_view_is_a_function_of_its_image_alone():
    view = View(grey=0, jitter=Jitter(saturation=0, hue=0, bands=0.2), blur=0.5, solarize=0.3, rotate90=0.5)
    together = [np.empty((4, 16, 16, 5), np.float32)]
    for row, index in enumerate([7, 3, 9, 4]):
        cpu.write_views(IMAGE, [drawn_view(view, [7, 3, 9, 4])], row, together, coloured=True)
        alone = [np.empty((1, 16, 16, 5), np.float32)]
        cpu.write_views(IMAGE, [drawn_view(view, [index])], 0, alone, coloured=True)
        np.testing.assert_array_equal(alone[0][0], together[0][row])


def test_boxes_are_those_of_an_rgb_view():
    view, out = drawn_view(PLAIN, [0]), [np.empty((1, 16, 16, 5), np.float32)]
    cpu.write_views(IMAGE, [view], 0, out, coloured=True)
    np.testing.assert_array_equal(out[0][0], crop_bands(IMAGE, view.box(0, 60, 80), flip=False, size=16))


def test_each_band_has_a_brightness_of_its_own_in_half_of_the_views():
    factors = drawn_view(ONLY_BANDS, list(range(2000))).band_factors
    jittered = (factors != 1).any(axis=1)
    assert 0.45 < jittered.mean() < 0.55
    some = factors[jittered]
    assert some.min() > 0.7
    assert some.max() < 1.3
    np.testing.assert_allclose(some.mean(axis=0), 1, atol=0.03)
    assert np.abs(np.corrcoef(some.T) - np.eye(5)).max() < 0.1  # independent


def test_bands_are_normalized_without_a_division_by_255():
    x = torch.rand(2, 5, 4, 4)
    kept = x.clone()
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1)
    expected = (x - torch.tensor(mean).view(5, 1, 1)) / torch.tensor(std).view(5, 1, 1)
    torch.testing.assert_close(normalize(x, mean=mean, std=std), expected)
    assert torch.equal(x, kept)
