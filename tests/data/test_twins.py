"""Near-duplicates: another size, compression or brightness of one picture is found, another picture is not."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from moco.data.twins import SIGNS, _few_differ, groups, near, signs_of


def picture(seed: int, height: int = 96, width: int = 128) -> Image.Image:
    """A smooth picture with structure of all sizes, as photographs have it."""
    rng, whole = np.random.default_rng(seed), np.zeros((height, width, 3))
    for scale in (4, 8, 16, 32):
        noise = Image.fromarray(rng.integers(0, 256, (scale, scale, 3), dtype=np.uint8))
        whole += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=float) / 4
    return Image.fromarray(whole.astype(np.uint8))


def compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


CHANGES = {
    "half the size": lambda image: image.resize((64, 48), Image.Resampling.LANCZOS),
    "three times the size": lambda image: image.resize((384, 288), Image.Resampling.BICUBIC),
    "compressed": lambda image: compressed(image, 20),
    "brighter": lambda image: image.point(lambda value: min(int(value * 1.1 + 5), 255)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
}


def found(images: list[Image.Image]) -> list[list[int]]:
    signs, greys = zip(*[signs_of(np.asarray(image)) for image in images], strict=True)
    return near(np.array(signs, dtype=np.uint64), np.stack(greys))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_changed_copy_is_near(seed: int, change: str):
    assert found([picture(seed), CHANGES[change](picture(seed))]) == [[0, 1]]


def test_other_pictures_are_not_near():
    assert found([picture(seed) for seed in range(200)]) == []


@pytest.mark.parametrize("turn", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180])
def test_a_mirrored_or_turned_picture_is_another(turn: Image.Transpose):
    assert found([picture(0), picture(0).transpose(turn)]) == []


def test_pictures_of_one_colour_are_near_to_nothing():
    assert found([Image.new("RGB", (40, 40), colour) for colour in ("red", "red", "white")]) == []


def test_groups_keep_the_order_of_their_first():
    images = [picture(0), picture(1), compressed(picture(1), 30), picture(2), compressed(picture(0), 30), picture(0)]
    assert found(images) == [[0, 4, 5], [1, 2]]


def test_what_hangs_together_by_others_is_one_group():
    assert groups(np.array([[3, 4], [1, 2], [2, 4]]), 6) == [[1, 2, 3, 4]]


def test_every_pair_with_few_other_signs_is_found():
    """Against all pairs, one by one."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    flips = [
        sum(1 << int(bit) for bit in rng.choice(64, count, replace=False)) for count in range(12) for _ in range(8)
    ]
    signs = np.unique([int(base[i % 40]) ^ flip for i, flip in enumerate(flips)]).astype(np.uint64)
    expected = {
        (a, b) for a, b in itertools.combinations(range(len(signs)), 2)
        if (int(signs[a]) ^ int(signs[b])).bit_count() <= SIGNS
    }  # fmt: skip
    assert {tuple(pair) for pairs in _few_differ(signs) for pair in pairs.tolist()} == expected
    assert expected
