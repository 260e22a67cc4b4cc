"""How views look: against torchvision's functions on Pillow images, change by change, whole, and in distribution."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from pillow_views import ADJUST, photo, pillow_view
from torchvision import transforms as T
from torchvision.transforms import functional as TF

from moco.data.augment import colour as colour_module
from moco.data.augment.colour import BRIGHTNESS, CONTRAST, HUE, SATURATION, Look, colour
from moco.data.augment.crop import crop
from moco.data.augment.random_parameters import RandomNumbers, crop_boxes, flips, look, random_numbers
from moco.recipe import Jitter, View
from moco.recipes.cifar import CIFAR_VIEW
from moco.recipes.demo import DEMO_VIEW
from moco.recipes.moco_v1 import V1_VIEW
from moco.recipes.moco_v2 import V2_VIEW

# The second view of MoCo v3 but blurred more often, so that blur and solarize meet.
SOLARIZED_VIEW = View(crop_area=(0.08, 1.0), jitter=Jitter(saturation=0.2), blur=0.5, solarize=0.5)
VIEWS = {"v1": V1_VIEW, "v2": V2_VIEW, "v3": SOLARIZED_VIEW, "cifar": CIFAR_VIEW, "demo": DEMO_VIEW}


def tensor(image: Image.Image | np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def psnr(a: torch.Tensor | np.ndarray, b: torch.Tensor | np.ndarray) -> float:
    """Peak signal to noise ratio in dB; 120 if equal."""
    error = np.mean((np.asarray(a).astype(float) - np.asarray(b).astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 255**2 * 1e-12)))


def plain(count: int) -> Look:
    """No change at all."""
    nothing = np.zeros(count, dtype=bool)
    return Look(
        order=np.full((count, 4), -1), factors=np.ones((count, 4)), grey=nothing.copy(), grey_first=False,
        sigma=np.zeros(count), solarize=nothing.copy(),
    )  # fmt: skip


def jittered(op: int, factor: float) -> Look:
    one = plain(1)
    one.order[0, 2] = op
    one.factors[0, op] = factor
    return one


# --- one change at a time -----------------------------------------------------------------------------------------


FACTORS = [0.0, 0.6, 0.7361, 0.99, 1.0, 1.0001, 1.2345, 1.4, 2.6]
CHANGES = [(op, factor) for op in (BRIGHTNESS, CONTRAST, SATURATION) for factor in FACTORS]
CHANGES += [(HUE, factor) for factor in (-0.5, -0.4, -0.1, -0.003, 0.0, 0.0314, 0.1, 0.25, 0.4, 0.5)]


@pytest.mark.parametrize(("op", "factor"), CHANGES)
def test_a_jitter_is_pillows_bit_for_bit(op: int, factor: float):
    every = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)  # all colours
    for image in (every, photo(120, 120)):
        expected = ADJUST[op](Image.fromarray(image), float(np.float32(factor)))
        assert torch.equal(colour(tensor(image), jittered(op, factor)), tensor(expected))


@pytest.mark.slow
def test_hue_of_every_colour_is_pillows():
    for red in range(0, 256, 16):
        colours = np.stack(np.mgrid[red : red + 16, 0:256, 0:256], axis=-1).reshape(1024, 1024, 3).astype(np.uint8)
        expected = TF.adjust_hue(Image.fromarray(colours), 0.1)
        assert torch.equal(colour(tensor(colours), jittered(HUE, 0.1)), tensor(expected))


def test_contrast_of_a_large_image_has_an_exact_mean():
    image = np.full((600, 600, 3), 255, dtype=np.uint8)  # the sum of its luma is no float32
    image[0, :2] = 254
    image[::2] -= np.uint8(1)  # mean 254.5 less a millionth: rounds to 254
    expected = TF.adjust_contrast(Image.fromarray(image), 0.0)
    assert torch.equal(colour(tensor(image), jittered(CONTRAST, 0.0)), tensor(expected))


def test_grey_is_pillows_bit_for_bit():
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    one = plain(1)
    one.grey[0] = True
    assert torch.equal(colour(tensor(image), one), tensor(TF.rgb_to_grayscale(Image.fromarray(image), 3)))


def test_solarize_is_pillows_bit_for_bit():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    one = plain(1)
    one.solarize[0] = True
    assert torch.equal(colour(tensor(image), one), tensor(ImageOps.solarize(Image.fromarray(image), 128)))


def blurred(image: np.ndarray, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    one = plain(1)
    one.sigma[0] = sigma
    return colour(tensor(image), one), tensor(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


@pytest.mark.parametrize("sigma", [0.1, 0.31, 0.5, 1.0, 1.4999, 2.0, 5.0])
@pytest.mark.parametrize("side", [97, 32, 5, 1])
def test_blur_is_pillows_bit_for_bit(side: int, sigma: float):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    for image in [noise, photo(side, side)] if side > 20 else [noise]:
        ours, expected = blurred(image, sigma)
        assert torch.equal(ours, expected)


def test_without_colour_changes_the_image_stays_the_same():
    image = tensor(photo(32, 32))
    assert torch.equal(colour(image, plain(1)), image)


def test_the_crops_given_stay_as_they_were():
    crops = torch.cat([tensor(photo(32, 32, seed)) for seed in range(8)])
    before = crops.clone()
    colour(crops, look(V2_VIEW, random_numbers(0, 0, ids=np.arange(8), view_index=0)))
    assert torch.equal(crops, before)


# --- whole views --------------------------------------------------------------------------------------------------


def our_views(images: list[np.ndarray], view: View, numbers: RandomNumbers, size: int) -> torch.Tensor:
    sizes = np.array([image.shape[:2] for image in images])
    boxes = crop_boxes(view, numbers, heights=sizes[:, 0], widths=sizes[:, 1])
    flipped = flips(view, numbers)
    crops = [crop(images[i], boxes[i], flip=bool(flipped[i]), size=size) for i in range(len(images))]
    return colour(torch.from_numpy(np.stack(crops)), look(view, numbers))


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_equals_pillows_with_the_same_random_numbers(name: str):
    view, count = VIEWS[name], 100
    images = [photo(90 + seed % 40, 120 - seed % 30, seed) for seed in range(count)]
    ours = our_views(images, view, random_numbers(1, 2, ids=np.arange(count), view_index=1), 64)
    alone = [random_numbers(1, 2, ids=np.array([i]), view_index=1) for i in range(count)]
    for i in range(count):
        assert np.array_equal(ours[i].numpy(), pillow_view(images[i], view, alone[i], 64))


def test_changes_in_another_order_are_found():
    images = [photo(90, 120, seed) for seed in range(30)]
    numbers = random_numbers(1, 2, ids=np.arange(30), view_index=1)
    ours = our_views(images, V2_VIEW, numbers, 64)
    grey_first = V2_VIEW.model_copy(update={"grey_first": True})
    alone = [random_numbers(1, 2, ids=np.array([i]), view_index=1) for i in range(30)]
    worst = min(psnr(ours[i], pillow_view(images[i], grey_first, alone[i], 64)) for i in range(30))
    assert worst < 50


def test_a_view_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch):
    images = [photo(40, 50, seed) for seed in range(40)]
    ids = np.random.default_rng(0).integers(0, 2**40, 40)
    together = our_views(images, SOLARIZED_VIEW, random_numbers(0, 0, ids=ids, view_index=0), 32)
    for part in (np.array([7]), np.array([39, 0, 20]), np.random.default_rng(1).permutation(40)):
        alone = our_views(
            [images[i] for i in part], SOLARIZED_VIEW, random_numbers(0, 0, ids=ids[part], view_index=0), 32
        )
        assert torch.equal(alone, together[part])
    monkeypatch.setattr(colour_module, "CACHED", 3 * 32 * 32 * 7)  # 7 images at a time
    assert torch.equal(our_views(images, SOLARIZED_VIEW, random_numbers(0, 0, ids=ids, view_index=0), 32), together)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("without_shape_checks")
def test_colours_that_torch_compiles_are_the_same():
    images = [photo(40, 50, seed) for seed in range(24)]
    view = SOLARIZED_VIEW.model_copy(update={"jitter": Jitter(p=1.0, hue=0.4)})
    for ids in (np.arange(24), np.arange(100, 111)):  # other numbers of images for every change
        numbers = random_numbers(0, 0, ids=ids, view_index=0)
        crops = torch.from_numpy(np.stack([images[i % 24][:40, :40].transpose(2, 0, 1) for i in ids]).copy())
        assert torch.equal(colour(crops, look(view, numbers), compiled=True), colour(crops, look(view, numbers)))


# --- the distribution of views ------------------------------------------------------------------------------------

SIDE, SAMPLES = 48, 600


def torchvision_views(view: View, seed: int) -> np.ndarray:
    """The authors' transforms, with randomness of their own."""
    torch.manual_seed(seed)
    rng, jitter = np.random.default_rng(seed), view.jitter
    blur = T.Lambda(lambda picture: picture.filter(ImageFilter.GaussianBlur(rng.uniform(*view.blur_sigma))))
    change = T.Compose(
        [
            T.RandomResizedCrop(SIDE, scale=view.crop_area),
            T.RandomApply([T.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)], jitter.p),
            T.RandomGrayscale(view.grey),
            T.RandomApply([blur], view.blur),
            T.RandomHorizontalFlip(view.flip),
        ]
    )
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in photos()]).transpose(0, 3, 1, 2)


@lru_cache(maxsize=1)
def photos() -> list[np.ndarray]:
    """60 pictures, ten times each."""
    return [photo(200, 240, seed) for seed in range(60)] * (SAMPLES // 60)


def marginals(views: np.ndarray) -> dict[str, np.ndarray]:
    """Of each view some numbers that a wrong law would move."""
    x = views.astype(np.float64)
    red, green, blue = x.mean(axis=(2, 3)).T
    chroma = (x.max(axis=1) - x.min(axis=1)).mean(axis=(1, 2))
    return {
        "red": red,
        "green": green,
        "blue": blue,
        "warmth": red - blue,
        "tint": np.abs(2 * green - red - blue),
        "deviation": x.std(axis=(1, 2, 3)),
        "gradient": np.abs(np.diff(x, axis=3)).mean(axis=(1, 2, 3)),
        "chroma": chroma,
        "grey": chroma == 0,
    }


def distances(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """By how many standard errors the marginals of two samples of views differ."""
    left, right = marginals(a), marginals(b)
    return {
        name: abs(left[name].mean() - right[name].mean()) / np.sqrt((left[name].var() + right[name].var()) / SAMPLES)
        for name in left
    }


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return torchvision_views(V2_VIEW, 0)


def sampled(view: View, seed: int = 0) -> np.ndarray:
    return our_views(photos(), view, random_numbers(seed, 0, ids=np.arange(SAMPLES), view_index=0), SIDE).numpy()


TELLING = 4.0  # standard errors


def test_views_have_the_marginals_of_torchvisions(reference: np.ndarray):
    assert max(distances(torchvision_views(V2_VIEW, 1), reference).values()) < TELLING  # two seeds of the reference
    assert max(distances(sampled(V2_VIEW), reference).values()) < TELLING


def test_marginals_tell_a_wrong_hue(reference: np.ndarray):
    wrong = V2_VIEW.model_copy(update={"jitter": Jitter(hue=0.4)})
    found = distances(sampled(wrong), reference)
    assert found["warmth"] > TELLING


def test_marginals_tell_a_wrong_share_of_grey(reference: np.ndarray):
    assert distances(sampled(V2_VIEW.model_copy(update={"grey": 0.35})), reference)["grey"] > TELLING


def test_marginals_tell_swapped_channels(reference: np.ndarray):
    assert distances(sampled(V2_VIEW)[:, ::-1], reference)["warmth"] > TELLING


def test_marginals_tell_a_resize_without_antialiasing(reference: np.ndarray):
    numbers = random_numbers(0, 0, ids=np.arange(SAMPLES), view_index=0)
    boxes = crop_boxes(V2_VIEW, numbers, heights=np.full(SAMPLES, 200), widths=np.full(SAMPLES, 240))
    aliased = [
        torch.nn.functional.interpolate(
            tensor(image)[:, :, top : top + height, left : left + width].float(), (SIDE, SIDE), mode="bilinear"
        ).round().byte()
        for image, (top, left, height, width) in zip(photos(), boxes.tolist(), strict=True)
    ]  # fmt: skip
    wrong = colour(torch.cat(aliased), look(V2_VIEW, numbers)).numpy()
    assert distances(wrong, reference)["gradient"] > TELLING
