"""Crops, the evaluation transform and normalization: against torchvision's transforms on Pillow images."""

import numpy as np
import pytest
import torch
from PIL import Image
from pillow_views import ANY_ORDER, resized, resized_crop
from torchvision import transforms as T
from torchvision.transforms import functional as TF

from moco.data.augment.crop import central_crop, crop, eval_crop
from moco.data.augment.normalize import normalize
from moco.recipe import DataSpec


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "box", [(0, 0, 90, 120), (10, 20, 64, 64), (5, 7, 81, 100), (30, 40, 13, 9), (89, 119, 1, 1), (-20, -3, 130, 50)]
)
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_torchvisions_resized_crop_bit_for_bit(box: tuple[int, int, int, int], flip: bool):
    image = noise(90, 120)
    expected = resized_crop(Image.fromarray(image), box, 64)
    expected = TF.hflip(expected) if flip else expected
    ours = crop(image, box, flip=flip, size=64)
    assert (ours == np.asarray(expected).transpose(2, 0, 1)).all()
    assert ours.flags.c_contiguous


def test_a_mirrored_view_of_one_pixel_is_one_that_torch_takes():
    view = crop(image := noise(9, 9), [0, 0, 9, 9], flip=True, size=1)
    expected = TF.resized_crop(Image.fromarray(image), 0, 0, 9, 9, [1, 1])
    np.testing.assert_array_equal(torch.from_numpy(view).numpy(), np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(256, 256), (300, 401), (401, 300), (257, 1000), (20, 31), (256, 301), (200, 1000)])
@pytest.mark.parametrize("data", [DataSpec(), DataSpec(size=32, eval_resize=32), DataSpec(size=65, eval_resize=40)])
def test_evaluation_sees_torchvisions_resize_and_central_crop(size: tuple[int, int], data: DataSpec):
    image = noise(*size)
    shape = central_crop(*size, data)
    picture = resized(Image.fromarray(image), shape.height, shape.width)
    assert picture.size == T.Resize(data.eval_resize)(Image.fromarray(image)).size
    expected = T.CenterCrop(data.size)(picture)
    assert (eval_crop(image, data) == np.asarray(expected).transpose(2, 0, 1)).all()


@pytest.mark.parametrize(("height", "width"), [(300, 70), (200, 64), (500, 90), (120, 90), (70, 300)])
def test_crops_and_resized_images_are_those_of_the_installed_pillow_or_a_rounding_away(height: int, width: int):
    """Pillow 13: equal. Older releases never resize along the columns first, so tall crops are rounded otherwise."""
    image = noise(height, width)
    expected = TF.resized_crop(Image.fromarray(image), 0, 0, height, width, [64, 64])
    apart = np.abs(crop(image, (0, 0, height, width), flip=False, size=64).astype(int).transpose(1, 2, 0) - expected)
    assert apart.max() <= (0 if ANY_ORDER else 1)
    assert (apart > 0).mean() < 0.3


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (3, 1000), (1000, 3), (20, 30_000), (30_000, 40)])
@pytest.mark.parametrize("data", [DataSpec(size=28, eval_resize=32), DataSpec(size=65, eval_resize=40)])
def test_of_long_images_only_the_part_that_is_shown_is_resized(monkeypatch, size: tuple[int, int], data: DataSpec):
    image, resized, resize = noise(*size), [], Image.Image.resize
    expected = T.Compose([T.Resize(data.eval_resize), T.CenterCrop(data.size)])(Image.fromarray(image))
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, to, *a, **k: resized.append(to) or resize(self, to, *a, **k)
    )
    difference = eval_crop(image, data).astype(int) - np.asarray(expected).transpose(2, 0, 1)
    assert abs(difference).max() <= 1  # each of two passes is rounded
    assert all(max(to) <= 80 for to in resized)


def test_normalizing_is_torchvisions():
    images = torch.from_numpy(noise(16, 16)).permute(2, 0, 1)[None]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = T.Compose([T.ToTensor(), T.Normalize(mean, std)])(Image.fromarray(noise(16, 16)))
    torch.testing.assert_close(normalize(images, mean=mean, std=std)[0], expected, rtol=1e-5, atol=2e-6)


# --- looks --------------------------------------------------------------------------------------------------------
