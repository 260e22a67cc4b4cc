"""JPEG files decoded at a half, a quarter or an eighth of their size: against Pillow's draft mode and averages."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from pillow_views import photo

from moco.data.decode import decode as decode_module
from moco.data.decode import rgb
from moco.data.decode.decode import BadImage, decode, decode_file
from moco.data.decode.scaled import DIVISORS, Scaled, decode_file_scaled, decode_scaled, largest_divisor

SIZES = [(64, 96), (61, 83), (97, 120), (17, 23)]


def jpeg_of(pixels: np.ndarray, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def two_in_one(pixels: np.ndarray) -> bytes:
    """As phones write them: a second picture after the first."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))], quality=90)
    return buffer.getvalue()


KINDS: dict[str, Callable[[np.ndarray], bytes]] = {
    "colour": jpeg_of,
    "all chroma": lambda pixels: jpeg_of(pixels, subsampling="4:4:4"),
    "half the chroma": lambda pixels: jpeg_of(pixels, subsampling="4:2:2"),
    "grey": lambda pixels: jpeg_of(pixels, "L"),
    "progressive": lambda pixels: jpeg_of(pixels, progressive=True),
    "CMYK": lambda pixels: jpeg_of(pixels, "CMYK"),
    "several pictures": two_in_one,
    "RGB": lambda pixels: jpeg_of(pixels, keep_rgb=True),
}


def scaled(data: bytes, divisor: int) -> Scaled:
    return decode_file_scaled(io.BytesIO(data), lambda height, width: divisor)


def by_draft(data: bytes, divisor: int) -> np.ndarray:
    """What Pillow's draft mode gives."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        image.draft(None, (max(width // divisor, 1), max(height // divisor, 1)))
        assert image.size == (-(-width // divisor), -(-height // divisor))
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_pillows_draft_mode(kind: str, size: tuple[int, int], divisor: int):
    data = KINDS[kind](photo(*size))
    found = scaled(data, divisor)
    assert np.array_equal(found.pixels, by_draft(data, divisor))
    assert found[1:] == (*size, divisor, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["all chroma", "grey"])
def test_an_eighth_of_the_size_is_the_mean_of_each_block(kind: str):
    data = KINDS[kind](photo(160, 240) // 2 + 64)  # so that no value is cut off at 0 or 255
    blocks = decode_file(io.BytesIO(data)).reshape(20, 8, 30, 8, 3).astype(float)
    assert np.abs(scaled(data, 8).pixels - blocks.mean(axis=(1, 3))).max() < 2  # rounding


@pytest.mark.parametrize("kind", KINDS)
def test_whole_images_have_the_bits_of_exact_decoding(kind: str):
    data = KINDS[kind](photo(61, 83))
    found = scaled(data, 1)
    assert np.array_equal(found.pixels, decode_file(io.BytesIO(data)))
    assert found[1:] == (61, 83, 1, 0.0, 0.0)


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_decoded_whole(name: str):
    buffer = io.BytesIO()
    Image.fromarray(photo(61, 83)).save(buffer, name)
    found = scaled(buffer.getvalue(), 8)
    assert np.array_equal(found.pixels, decode_file(buffer))
    assert found[1:] == (61, 83, 1, 0.0, 0.0)


def turned(pixels: np.ndarray, orientation: int, **options) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return jpeg_of(pixels, exif=exif, **options)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])  # decoded by libjpeg-turbo, and by Pillow
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_lies_where_it_does_at_full_size(orientation: int, mode: str):
    """Its centre of light, in pixels of the whole image, does not move, though 61 and 83 are no multiples of 8."""
    y, x = np.mgrid[:61, :83]
    spot = 200 * np.exp(-((y - 20) ** 2 + (x - 30) ** 2) / 60) + 20
    data = turned(np.repeat(spot[..., None], 3, axis=2).astype(np.uint8), orientation, mode=mode)
    exact = decode_file(io.BytesIO(data))
    for divisor in (2, 4):
        found = scaled(data, divisor)
        assert (found.height, found.width) == exact.shape[:2]
        for axis, start in ((0, found.top), (1, found.left)):
            assert centre(found.pixels, axis, start) * divisor == pytest.approx(centre(exact, axis, 0.0), abs=0.1)


def centre(pixels: np.ndarray, axis: int, start: float) -> float:
    """The centre of light along an axis, from where the whole image begins."""
    light = np.maximum(pixels[..., 0].astype(float) - 25, 0).sum(axis=1 - axis)
    return float((light * (np.arange(len(light)) + 0.5)).sum() / light.sum()) - start


def test_the_scale_is_chosen_for_the_upright_image():
    asked = []
    decode_file_scaled(io.BytesIO(turned(photo(61, 83), 6)), lambda *size: asked.append(size) or 2)
    assert asked == [(83, 61)]


def outcome(read: Callable[[], object]) -> str:
    try:
        read()
    except BadImage as bad:
        return bad.reason
    return "pixels"


DAMAGED = {
    "cut short": lambda data: data[: len(data) // 2],
    "cut within the header": lambda data: data[:300],
    "the end is missing": lambda data: data[:-2],
    "overwritten with zeros": lambda data: data[:-900] + bytes(900),
    "bytes after the end": lambda data: data + b"more",
    "a marker in the scan": lambda data: data[:-1500] + b"\xff\xc4\0\2" + data[-1496:],
    "no tables": lambda data: data.replace(b"\xff\xc4", b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("kind", ["colour", "progressive", "CMYK", "several pictures"])
def test_a_damaged_file_is_bad_for_the_reason_that_exact_decoding_gives(tmp_path, kind: str, damage: str):
    path = tmp_path / "x.jpg"
    path.write_bytes(DAMAGED[damage](KINDS[kind](photo(120, 160))))
    assert outcome(lambda: decode_scaled(path, lambda *_: 4)) == outcome(lambda: decode(path))


def test_what_pillow_does_not_make_smaller_is_decoded_whole(monkeypatch):
    data = KINDS["CMYK"](photo(61, 83))
    for draft in (lambda *_: None, lambda *_: 1 / 0):
        monkeypatch.setattr(JpegImageFile, "draft", draft)
        assert scaled(data, 4)[1:] == (61, 83, 1, 0.0, 0.0)


def test_a_jpeg_file_that_is_cut_short_is_bad(tmp_path):
    (tmp_path / "x.jpg").write_bytes(DAMAGED["cut short"](jpeg_of(photo(120, 160))))
    with pytest.raises(BadImage, match="truncated"):
        decode_scaled(tmp_path / "x.jpg", lambda *_: 8)


def test_a_file_on_the_disk_is_made_smaller_too(tmp_path, monkeypatch):
    """Files of more than 16 MiB are not read into memory."""
    monkeypatch.setattr(decode_module, "IN_MEMORY_BYTES", 100)
    data = turned(photo(97, 120), 8)
    (tmp_path / "x.jpg").write_bytes(data)
    found = decode_scaled(tmp_path / "x.jpg", lambda *_: 4)
    assert np.array_equal(found.pixels, np.rot90(by_draft(data, 4)))


def test_the_limits_are_those_of_the_whole_image(tmp_path, monkeypatch):
    monkeypatch.setattr(rgb, "MAX_PIXELS", 97 * 120 - 1)
    for kind in ("colour", "CMYK"):
        (tmp_path / "x.jpg").write_bytes(KINDS[kind](photo(97, 120)))
        with pytest.raises(BadImage, match="120 x 97 pixels are more than"):
            decode_scaled(tmp_path / "x.jpg", lambda *_: 8)


@pytest.mark.parametrize(("side", "expected"), [(127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (9999, 8)])
def test_the_divisor_is_the_largest_that_leaves_enough_pixels(side: int, expected: int):
    assert largest_divisor(side, least=64) == expected
