"""Views of images that were decoded smaller: Pillow's bits, and the same part of the picture as at full size."""

import numpy as np
import pytest
from PIL import Image
from pillow_views import photo

from moco.data.augment import cpu
from moco.data.augment.cpu import DrawnView
from moco.data.augment.crop import crop_part
from moco.data.augment.random_parameters import crop_boxes, random_numbers
from moco.data.decode.scaled import Scaled, whole
from moco.recipe import Jitter, View
from moco.recipes.moco_v2 import V2_VIEW

PLAIN = View(jitter=Jitter(p=0.0), grey=0.0)
PADDED = PLAIN.model_copy(update={"crop_area": (0.3, 2.0)})
TURNED = V2_VIEW.model_copy(update={"flip_vertical": 0.5, "rotate90": 0.75})
BOXES = [(0.0, 0.0, 90.0, 120.0), (3.5, 7.25, 60.125, 71.75), (10.875, 0.125, 20.5, 119.5), (0.5, 40.25, 89.5, 50.0)]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    assert cpu.kernels(wait=True) is not None


def by_pillow(image: np.ndarray, box: tuple[float, ...], size: int) -> np.ndarray:
    """Pillow's resize of the pixels that the box touches, both axes in one call."""
    top, left, bottom, right = box
    y, x = int(top), int(left)
    window = Image.fromarray(image[y : int(np.ceil(bottom)), x : int(np.ceil(right))])
    part = (left - x, top - y, right - x, bottom - y)
    return np.asarray(window.resize((size, size), Image.Resampling.BILINEAR, box=part)).transpose(2, 0, 1)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", [32, 61, 96])
def test_a_box_with_sides_within_pixels_is_resized_as_pillow_does(box: tuple[float, ...], size: int):
    image = photo(90, 120)
    found, expected = crop_part(image, box, flip=False, size=size).astype(int), by_pillow(image, box, size)
    assert np.abs(found - expected).max() <= 1  # newer releases of Pillow choose which axis is first
    assert np.array_equal(crop_part(image, box, flip=True, size=size), found[..., ::-1])


def views_of(image: Scaled, view: View, size: int, rows: int) -> np.ndarray:
    drawn = DrawnView(view, random_numbers(1, 2, ids=np.arange(rows), view_index=0))
    crops = np.empty((rows, size, size, 3), np.uint8)
    for row in range(rows):
        cpu.views_of_scaled(image, [drawn], row, [crops], coloured=True)
    return crops


@pytest.mark.parametrize("view", [V2_VIEW, PLAIN, PADDED, TURNED])
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_the_kernels_have_the_bits_of_pillow_and_torch(monkeypatch, view: View, divisor: int):
    image = Scaled(photo(90, 121), 90 * divisor - 3, 121 * divisor - 1, divisor, 3 / divisor, 1 / divisor)
    fast = views_of(image, view, 48, 30)
    monkeypatch.setattr(cpu, "kernels", lambda: None)
    assert np.array_equal(views_of(image, view, 48, 30), fast)


def test_an_image_that_was_not_made_smaller_has_the_usual_views():
    image = photo(90, 120)
    drawn = [DrawnView(V2_VIEW, random_numbers(1, 2, ids=np.arange(9), view_index=0))]
    usual, found = np.empty((9, 48, 48, 3), np.uint8), np.empty((9, 48, 48, 3), np.uint8)
    for row in range(9):
        cpu.write_views(image, drawn, row, [usual], coloured=True)
        cpu.views_of_scaled(whole(image), drawn, row, [found], coloured=True)
    assert np.array_equal(found, usual)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 0), (0, 3), (3, 3)])
@pytest.mark.parametrize("view", [PLAIN, PADDED])
def test_a_view_shows_the_part_that_it_shows_of_the_whole_image(view: View, top: int, left: int):
    """Of a slope, of which a shift by a pixel of the smaller image would change every value."""
    height, width, divisor = 197, 205, 4  # each with 3 pixels more, a multiple of 4
    y, x = np.mgrid[-top : 200 - top, -left : 208 - left]
    slope = np.stack([y + 20.0, x + 20.0, (x + y) / 2.0 + 20], axis=-1)
    small = slope.reshape(50, 4, 52, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    large = slope[top : top + height, left : left + width].astype(np.uint8)
    found = views_of(Scaled(small, height, width, divisor, top / divisor, left / divisor), view, 24, 40).astype(float)
    exact = views_of(whole(large), view, 24, 40).astype(float)
    for one, other in zip(found, exact, strict=True):
        rows, columns = np.nonzero((other > 15).all(axis=2))  # beyond the border of the image is black
        middle = slice(rows.min() + 3, rows.max() - 2), slice(columns.min() + 3, columns.max() - 2)
        assert one[middle].size > 300
        assert abs((one - other)[middle].mean()) < 0.7  # a pixel of `small` is 4


def test_each_crop_keeps_the_pixels_of_a_view_and_no_larger_scale_would_do():
    views = [DrawnView(V2_VIEW, random_numbers(1, 2, ids=np.arange(50), view_index=index)) for index in (0, 1)]
    size, sides, found = 64, (700, 900), set()
    for row in range(50):
        divisor = cpu.divisor_for(*sides, drawn=views, row=row, sizes=[size] * len(views))
        smallest = min(
            crop_boxes(view.view, view.numbers, heights=np.full(50, 700), widths=np.full(50, 900))[row, 2:].min()
            for view in views
        )
        assert divisor == 1 or smallest / divisor >= size
        assert divisor == 8 or smallest / (2 * divisor) < size
        found.add(divisor)
    assert found == {4, 8}
