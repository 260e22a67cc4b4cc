"""The compiled kernels: Pillow's bits for every view, size and colour, and what happens where they are not."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pillow_views import ADJUST, photo, pillow_view

from moco.data.augment import cpu
from moco.data.augment.colour import HUE
from moco.data.augment.cpu import DrawnView
from moco.data.augment.crop import eval_crop
from moco.data.augment.random_parameters import random_numbers
from moco.recipe import DataSpec, Jitter, View
from moco.recipes.cifar import CIFAR_VIEW
from moco.recipes.demo import DEMO_VIEW
from moco.recipes.moco_v1 import V1_VIEW
from moco.recipes.moco_v2 import V2_VIEW

# The second view of MoCo v3, but blurred more often, so that blur and solarize meet.
SOLARIZED_VIEW = View(crop_area=(0.08, 1.0), jitter=Jitter(saturation=0.2), blur=0.5, solarize=0.5)
ALWAYS_GREY = View(jitter=Jitter(p=1.0, hue=0.5), grey=1.0, grey_first=True, blur=1.0, blur_sigma=(0.1, 6.0))
TURNED_VIEW = V2_VIEW.model_copy(update={"flip_vertical": 0.5, "rotate90": 0.75})
VIEWS = {
    "upside down": V2_VIEW.model_copy(update={"flip_vertical": 0.5}), "turned": TURNED_VIEW,
    "v1": V1_VIEW, "v2": V2_VIEW, "v3": SOLARIZED_VIEW, "cifar": CIFAR_VIEW, "demo": DEMO_VIEW, "grey": ALWAYS_GREY,
}  # fmt: skip
PLAIN = View(jitter=Jitter(p=0.0), grey=0.0)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    assert cpu.kernels(wait=True) is not None


def ours(images: list[np.ndarray], view: View, size: int, *, coloured: bool = True) -> np.ndarray:
    """A view of each image, n x 3 x S x S, with the numbers of its place."""
    drawn = DrawnView(view, random_numbers(1, 2, ids=np.arange(len(images)), view_index=1))
    crops = np.empty((len(images), size, size, 3), np.uint8)
    for row, image in enumerate(images):
        cpu.write_views(image, [drawn], row, [crops], coloured=coloured)
    return crops.transpose(0, 3, 1, 2)


def expected(images: list[np.ndarray], view: View, size: int) -> np.ndarray:
    alone = [random_numbers(1, 2, ids=np.array([row]), view_index=1) for row in range(len(images))]
    return np.stack([pillow_view(image, view, numbers, size) for image, numbers in zip(images, alone, strict=True)])


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("size", [32, 61, 96])
def test_a_view_has_the_bits_of_pillow_with_the_same_random_numbers(name: str, size: int):
    images = [photo(90 + seed % 40, 120 - seed % 30, seed) for seed in range(60)]
    assert np.array_equal(ours(images, VIEWS[name], size), expected(images, VIEWS[name], size))


@pytest.mark.parametrize("view", [PLAIN, DEMO_VIEW, PLAIN.model_copy(update={"crop_ratio": (0.1, 10.0)})])
def test_images_of_every_shape_are_cropped_with_pillows_bits(view: View):
    rng = np.random.default_rng(0)
    sides = np.exp(rng.uniform(0, np.log(700), (80, 2))).astype(int)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sides]
    assert np.array_equal(ours(images, view, 64), expected(images, view, 64))


def test_the_crop_alone_is_the_view_without_its_colours():
    images = [photo(90, 120, seed) for seed in range(20)]
    plain = V2_VIEW.model_copy(update={"jitter": Jitter(p=0.0), "grey": 0.0, "blur": 0.0})
    assert np.array_equal(ours(images, V2_VIEW, 64, coloured=False), expected(images, plain, 64))


def test_images_in_memory_get_the_same_views_in_one_call():
    images = np.stack([photo(32, 32, seed) for seed in range(50)])
    ids = np.random.default_rng(0).permutation(50)
    drawn = [DrawnView(view, random_numbers(1, 2, ids=ids, view_index=1)) for view in (V2_VIEW, DEMO_VIEW)]
    together, apart = ([np.zeros((50, 32, 32, 3), np.uint8) for _ in drawn] for _ in range(2))
    cpu.views_of_cached(images, ids[10:40], drawn, slice(10, 40), together, coloured=True)
    for row in range(10, 40):
        cpu.write_views(images[ids[row]], drawn, row, apart, coloured=True)
    assert all(np.array_equal(*pair) for pair in zip(together, apart, strict=True))


@pytest.mark.parametrize("data", [DataSpec(), DataSpec(size=32, eval_resize=32), DataSpec(size=65, eval_resize=40)])
def test_evaluation_sees_pillows_bits_of_images_of_every_shape(data: DataSpec):
    rng = np.random.default_rng(0)
    for height, width in [
        *np.exp(rng.uniform(np.log(20), np.log(900), (40, 2))).astype(int),
        (256, 256),
        (256, 300),
        (3, 900),
        (900, 2),
    ]:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert np.array_equal(cpu.eval_crop(image, data), eval_crop(image, data))


@pytest.mark.slow
def test_hue_of_every_colour_is_pillows():
    view = View(
        crop_area=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        jitter=Jitter(brightness=0, contrast=0, saturation=0, hue=0.5, p=1.0),
        grey=0.0,
        flip=0.0,
    )
    for red in range(0, 256, 16):
        colours = np.stack(np.mgrid[red : red + 16, 0:256, 0:256], axis=-1).reshape(1024, 1024, 3).astype(np.uint8)
        drawn = DrawnView(view, random_numbers(red, 0, ids=np.arange(1), view_index=0))
        out = np.empty((1, 1024, 1024, 3), np.uint8)
        cpu.write_views(colours, [drawn], 0, [out], coloured=True)
        turned = ADJUST[HUE](Image.fromarray(colours), float(drawn.look.factors[0, HUE]))
        assert np.array_equal(out[0], np.asarray(turned))


def test_a_read_only_image_is_accepted():
    image = photo(60, 70)
    before = ours([image], V2_VIEW, 32)
    image.setflags(write=False)
    assert np.array_equal(ours([image], V2_VIEW, 32), before)
    assert np.array_equal(ours([np.asfortranarray(image)], V2_VIEW, 32), before)


WITHOUT_NUMBA = """
import sys, warnings
sys.modules["numba"] = None
import numpy as np
from moco.data.augment import cpu
from moco.data.augment.random_parameters import random_numbers
from moco.recipes.moco_v2 import V2_VIEW
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert cpu.kernels(wait=True) is None
    assert cpu.kernels(wait=True) is None
assert len(caught) == 1 and "numba" in str(caught[0].message), caught
image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
out = np.empty((1, 32, 32, 3), np.uint8)
drawn = cpu.DrawnView(V2_VIEW, random_numbers(1, 2, ids=np.arange(1), view_index=1))
cpu.write_views(image, [drawn], 0, [out], coloured=True)
sys.stdout.buffer.write(out.tobytes())
"""


def test_without_numba_views_are_the_same_with_one_message():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == ours([image], V2_VIEW, 32).transpose(0, 2, 3, 1).tobytes()
