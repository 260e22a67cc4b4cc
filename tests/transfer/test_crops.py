"""Training crops: image and labels stay together, by Pillow's filters, padded as the recipe says."""

import numpy as np
import pytest
import torch
from PIL import Image

from moco.recipe_error import RecipeError
from moco.transfer.readers.formats import read_semantic
from moco.transfer.segmentation.crop import CropWindow, crop_with_labels, draw_window
from moco.transfer.segmentation.loader import CropLoader
from moco.transfer.segmentation.recipe import CropSpec
from moco.transfer.segmentation.recipes import segmentation_recipe
from tests.transfer.draw_shapes import make_shapes

GREY = (124, 116, 104)


def random_pair(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        rng.integers(0, 21, (height, width)).astype(np.uint8),
    )


@pytest.mark.parametrize(
    "window",
    [
        CropWindow((60, 44), 7, 9, 32, 32, flip=False),
        CropWindow((25, 18), 3, 2, 16, 16, flip=False),
        CropWindow((50, 37), 18, 5, 32, 32, flip=True),
    ],
)
def test_a_crop_is_that_of_the_whole_image_resized_by_pillow(window: CropWindow):
    image, labels = random_pair(50, 37)
    whole = np.asarray(Image.fromarray(image).resize(window.resized, Image.Resampling.BILINEAR))
    classes = np.asarray(Image.fromarray(labels).resize(window.resized, Image.Resampling.NEAREST))
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    step = -1 if window.flip else 1
    pixels, known = crop_with_labels(image, labels, window, side=window.width, colour=GREY)
    assert np.abs(pixels.astype(int) - whole[rows, columns][:, ::step]).max() <= 1
    assert (known == classes[rows, columns][:, ::step]).mean() > 0.98  # others lie in the middle between two pixels


def test_image_and_labels_are_cropped_alike():
    """Each class has a grey of its own, in squares: it is found where the labels say, but for resized edges."""
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((60, 60))).astype(np.uint8)
    image = np.repeat((20 * labels)[..., None], 3, axis=2)
    rng = np.random.default_rng(0)
    for _ in range(30):
        window = draw_window(240, 180, CropSpec(side=128), rng)
        pixels, known = crop_with_labels(image, labels, window, side=128, colour=GREY)
        inside = known != 255
        equal = np.abs(pixels[..., 0].astype(int) - 20 * known) <= 1
        assert inside.sum() == window.width * window.height
        assert equal[inside].mean() > 0.8
        assert not window.flip or (np.diff(known[0, : window.width].astype(int)) <= 0).all()


def test_a_small_image_is_padded_by_the_mean_colour_and_ignored_labels():
    image, labels = random_pair(20, 10)
    pixels, known = crop_with_labels(
        image, labels, CropWindow((20, 10), 0, 0, 20, 10, flip=False), side=32, colour=GREY
    )
    assert np.array_equal(pixels[:10, :20], image)
    assert np.array_equal(known[:10, :20], labels)
    outside = np.ones((32, 32), dtype=bool)
    outside[:10, :20] = False
    assert (pixels[outside] == GREY).all()
    assert (known[outside] == 255).all()


def test_ratios_places_and_flips_are_uniform():
    rng, spec = np.random.default_rng(0), CropSpec(side=100)
    windows = [draw_window(200, 300, spec, rng) for _ in range(2000)]
    ratios = np.array([one.resized[0] / 200 for one in windows])
    assert (ratios.min(), ratios.max()) == pytest.approx((0.5, 2.0), abs=0.01)
    assert ratios.mean() == pytest.approx(1.25, abs=0.04)  # 4 standard errors: 0.433 / sqrt(2000) each
    assert np.mean([one.flip for one in windows]) == pytest.approx(0.5, abs=0.045)
    tops = np.array([one.top / (one.resized[1] - 100) for one in windows])
    assert tops.mean() == pytest.approx(0.5, abs=0.03)
    assert (tops.min(), tops.max()) == pytest.approx((0, 1), abs=0.01)


def test_an_image_of_one_pixel_and_a_fixed_ratio_are_possible():
    window = draw_window(1, 1, CropSpec(smallest=0.5, largest=0.5, side=8), np.random.default_rng(0))
    _, known = crop_with_labels(
        np.zeros((1, 1, 3), np.uint8), np.full((1, 1), 3, np.uint8), window, side=8, colour=GREY
    )
    assert known.tolist() == [[3] + [255] * 7] + [[255] * 8] * 7
    with pytest.raises(RecipeError, match=r"crops\.smallest must be at most crops\.largest \(2\.0\), got 3"):
        segmentation_recipe("fcn", "30k").but(None, {"crops.smallest": 3})


def test_mini_batches_are_the_same_from_any_step_on_and_for_any_number_of_workers(tmp_path):
    scenes = read_semantic(make_shapes(tmp_path, 6, seed=0))
    recipe = segmentation_recipe("fcn", "4").but(None, {"optim.batch_size": 2, "crops.side": 33})
    whole = list(CropLoader(scenes, recipe, steps=range(5), workers=0))
    later = list(CropLoader(scenes, recipe, steps=range(2, 5), workers=2))
    for a, b in zip(whole[2:], later, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert all(torch.equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))
    images, labels = whole[0].inputs
    assert (images.shape, images.dtype) == ((2, 3, 33, 33), torch.uint8)
    assert (labels.shape, labels.dtype) == ((2, 33, 33), torch.uint8)
    other = list(CropLoader(scenes, recipe.but(None, {"seed": 1}), steps=range(5), workers=0))
    assert not all(torch.equal(a.inputs[0], b.inputs[0]) for a, b in zip(whole, other, strict=True))
