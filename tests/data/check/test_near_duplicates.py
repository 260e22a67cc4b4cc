"""Near-duplicates: another size, compression or brightness of one picture is found, another picture is not."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from moco.data.check import near_duplicates
from moco.data.check.near_duplicates import (
    MAX_DIFFERENT_BITS,
    MIN_CORRELATION,
    connected_components,
    count_ones,
    find_near,
    signature_of,
)


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
    hashes, thumbnails = zip(*[signature_of(np.asarray(image)) for image in images], strict=True)
    return find_near(np.array(hashes, dtype=np.uint64), np.stack(thumbnails))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_changed_copy_is_near(seed: int, change: str):
    assert found([picture(seed), CHANGES[change](picture(seed))]) == [[0, 1]]


def test_other_pictures_are_not_near():
    assert found([picture(seed) for seed in range(200)]) == []


@pytest.mark.parametrize("turn", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180])
def test_a_mirrored_or_rotated_picture_is_not_a_duplicate(turn: Image.Transpose):
    assert found([picture(0), picture(0).transpose(turn)]) == []


def test_pictures_of_one_colour_are_no_near_duplicates():
    assert found([Image.new("RGB", (40, 40), colour) for colour in ("red", "red", "white")]) == []


def test_groups_keep_the_order_of_their_first():
    images = [picture(0), picture(1), compressed(picture(1), 30), picture(2), compressed(picture(0), 30), picture(0)]
    assert found(images) == [[0, 4, 5], [1, 2]]


def test_images_connected_through_others_are_one_group():
    assert connected_components(np.array([[3, 4], [1, 2], [2, 4]]), 6) == [[1, 2, 3, 4]]


def changed_on(seed: int, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and thumbnails. Each comes from an earlier one, changed: some pairs are near by both, others by one."""
    rng = np.random.default_rng(seed)
    hashes, thumbnails = rng.integers(0, 2**64, n, dtype=np.uint64), rng.normal(128, 40, (n, 16, 16))
    for i in range(5, n):
        like = rng.integers(max(i - 8, 0), i, 2)  # its hash and thumbnail mostly come from the same one
        like[1] = like[0] if rng.random() < 0.8 else like[1]
        flips = sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 8), replace=False))
        hashes[i], thumbnails[i] = (
            hashes[like[0]] ^ np.uint64(flips),
            thumbnails[like[1]] + rng.normal(0, rng.uniform(2, 9), (16, 16)),
        )
    mixed = rng.permutation(n)
    return hashes[mixed], np.clip(thumbnails[mixed], 0, 255).astype(np.uint8)


@pytest.mark.parametrize("small", [0, 1024])
@pytest.mark.parametrize("block", [1, 2**18])
@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_of_all_near_pairs(seed: int, block: int, small: int, monkeypatch: pytest.MonkeyPatch):
    """Against all pairs, one by one, with the correlation of numpy."""
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    monkeypatch.setattr(near_duplicates, "SMALL", small)
    monkeypatch.setattr(near_duplicates, "PART", 3)
    hashes, thumbnails = changed_on(seed)
    correlated = np.corrcoef(thumbnails.reshape(len(thumbnails), -1)) >= MIN_CORRELATION
    few = np.array([[(int(a) ^ int(b)).bit_count() <= MAX_DIFFERENT_BITS for b in hashes] for a in hashes])
    pairs = [(a, b) for a, b in itertools.combinations(range(len(hashes)), 2) if few[a, b] and correlated[a, b]]
    expected = connected_components(np.array(pairs), len(hashes))
    assert find_near(hashes, thumbnails) == expected
    assert max(map(len, expected)) > 3
    assert len(pairs) < min(np.triu(few, 1).sum(), np.triu(correlated, 1).sum())


@pytest.mark.parametrize("byte", range(8))
def test_hashes_that_differ_in_every_byte_but_one_are_near(byte: int):
    one, others = 2**63 + 12345, sum(1 << 8 * k + k for k in range(8) if k != byte)
    thumbnails = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 16, 16), dtype=np.uint8), 2, axis=0)
    assert find_near(np.array([one, one ^ others], dtype=np.uint64), thumbnails) == [[0, 1]]


def test_many_frames_of_one_scene_are_one_group():
    n, rng = 5000, np.random.default_rng(0)
    flips = np.uint64(1) << rng.integers(0, 64, (3, n), dtype=np.uint64)
    scene = rng.integers(20, 236, (16, 16))
    thumbnails = (scene + rng.integers(-5, 6, (n, 16, 16))).astype(np.uint8)
    assert find_near(np.bitwise_xor.reduce(flips), thumbnails) == [list(range(n))]


@pytest.mark.parametrize("numpy_has_it", [True, False])
def test_the_bits_that_are_1_are_counted_with_any_numpy(numpy_has_it: bool, monkeypatch: pytest.MonkeyPatch):
    if not numpy_has_it:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    numbers = np.random.default_rng(0).integers(0, 2**64, (3, 40), dtype=np.uint64)
    numbers[0, :3] = 0, 1, 2**64 - 1
    assert count_ones(numbers).tolist() == [[number.bit_count() for number in line] for line in numbers.tolist()]


def test_no_images_have_no_groups():
    assert find_near(np.zeros(0, dtype=np.uint64), np.zeros((0, 16, 16), dtype=np.uint8)) == []
