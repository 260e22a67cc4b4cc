"""Plain JPEG files come out of libjpeg-turbo as they come out of Pillow, bit for bit; all others are left to Pillow."""

import io
import itertools
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from moco.data.decode import decode as decode_module
from moco.data.decode import jpeg, rgb
from moco.data.decode.decode import BadImage, decode

SIZES = [(1, 1), (7, 5), (8, 8), (17, 31), (33, 64), (120, 97)]


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth colours with some noise and hard edges, as photographs have them."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(y / (3 + c) + x / (5 + 2 * c)) + 60 * (x > width // 2) for c in range(channels)]
    return np.clip(np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, channels)), 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    """What Pillow alone makes of a file that need not be turned."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def by_libjpeg(data: bytes) -> np.ndarray | None:
    """What is read without Pillow; None when it is left to Pillow."""
    header = jpeg.read_header(data)
    return None if header is None else jpeg.decode_plain(data, header)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [5, 75, 100])
@pytest.mark.parametrize("size", SIZES)
def test_colour_is_pillows_bit_for_bit(size, quality: int, subsampling: str, progressive: bool):
    data = encoded(picture(*size), quality=quality, subsampling=subsampling, progressive=progressive)
    assert np.array_equal(by_libjpeg(data), by_pillow(data))


@pytest.mark.parametrize("subsampling", ["440", "411"])
@pytest.mark.parametrize("size", SIZES)
def test_rarer_subsamplings_are_pillows_bit_for_bit(size, subsampling: str):
    data = simplejpeg.encode_jpeg(picture(*size), quality=80, colorsubsampling=subsampling)
    assert np.array_equal(by_libjpeg(data), by_pillow(data))


@pytest.mark.parametrize(("size", "progressive"), list(itertools.product(SIZES, [False, True])))
def test_grey_is_pillows_bit_for_bit(size, progressive: bool):
    data = encoded(picture(*size, channels=1), progressive=progressive)
    assert np.array_equal(by_libjpeg(data), by_pillow(data))


@pytest.mark.parametrize(
    "options",
    [
        {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"optimize": True}, {"comment": b"\xff\xda" * 50},
        {"icc_profile": bytes(70_000)}, {"dpi": (300, 300)}, {"qtables": [[1] * 64, [255] * 64]},
    ],
    ids=str,
)  # fmt: skip
def test_both_decoders_agree_on_jpeg_files_with_other_options(options: dict):
    data = encoded(picture(70, 90), **options)
    assert np.array_equal(by_libjpeg(data), by_pillow(data))


def segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + (len(content) + 2).to_bytes(2) + content


def with_segment(data: bytes, kind: int, content: bytes) -> bytes:
    """`data` with one more segment at its start."""
    return data[:2] + segment(kind, content) + data[2:]


ADOBE = b"Adobe\0\x64\0\0\0\0"


def test_a_file_of_photoshop_is_pillows_bit_for_bit():
    data = with_segment(encoded(picture(33, 64)), 0xEE, ADOBE + b"\1")
    assert np.array_equal(by_libjpeg(data), by_pillow(data))


def cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.new("CMYK", (16, 16), (10, 100, 200, 50)).save(buffer, "JPEG")
    return buffer.getvalue()


def two_in_one() -> bytes:
    buffer, frames = io.BytesIO(), [Image.fromarray(picture(16, 16)), Image.new("RGB", (16, 16))]
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


PLAIN = encoded(picture(33, 64))
FRAME = PLAIN.index(b"\xff\xc0")
DOUBTFUL = {
    "CMYK": cmyk(),
    "several pictures": two_in_one(),
    "RGB, as Adobe says": encoded(picture(16, 16), keep_rgb=True),
    "an unknown transform of Adobe": with_segment(PLAIN, 0xEE, ADOBE + b"\0"),
    "a mark of Adobe cut short": with_segment(PLAIN, 0xEE, ADOBE[:6]),
    "components of other numbers": PLAIN.replace(b"\1\x22\0\2\x11\1\3\x11\1", b"R\x22\0G\x11\1B\x11\1"),
    "twelve bits": PLAIN[: FRAME + 4] + b"\x0c" + PLAIN[FRAME + 5 :],
    "arithmetic coding": PLAIN.replace(b"\xff\xc0", b"\xff\xc9"),
    "a height that comes later": PLAIN[: FRAME + 5] + b"\0\0" + PLAIN[FRAME + 7 :],
    "two frames": PLAIN[:FRAME] + PLAIN[FRAME : FRAME + 19] + PLAIN[FRAME:],
    "an end before the first scan": PLAIN[: FRAME + 19],
    "an end within the first scan's mark": PLAIN[: PLAIN.index(b"\xff\xda") + 4],
    "a scan before the frame": PLAIN[:FRAME] + PLAIN[PLAIN.index(b"\xff\xda") :],
    "bytes between the marks": PLAIN[:FRAME] + b"\0" + PLAIN[FRAME:],
    "a length of nothing": PLAIN[:2] + b"\xff\xe5\0\0" + PLAIN[2:],
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_pillow_decodes_doubtful_files(name: str):
    assert DOUBTFUL[name] != PLAIN
    assert jpeg.read_header(DOUBTFUL[name]) is None


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_another_format_under_the_name_of_a_jpeg_is_left_to_pillow(tmp_path, name: str):
    Image.new("RGB", (3, 2), (250, 250, 250)).save(tmp_path / "x.jpg", name)
    assert decode(tmp_path / "x.jpg").tolist() == [[[250] * 3] * 3] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photo_has_the_pixels_of_pillow(tmp_path, monkeypatch, orientation: int):
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "x.jpg").write_bytes(encoded(picture(33, 64), exif=exif))
    expected = alone(tmp_path / "x.jpg")
    monkeypatch.setattr(decode_module, "to_rgb", lambda image: pytest.fail("Pillow decoded it"))
    assert np.array_equal(decode(tmp_path / "x.jpg"), expected)


def test_an_orientation_in_xmp_alone_is_applied(tmp_path):
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    (tmp_path / "x.jpg").write_bytes(with_segment(PLAIN, 0xE1, xmp))
    assert np.array_equal(decode(tmp_path / "x.jpg"), np.rot90(by_pillow(PLAIN), -1))


def alone(path: Path) -> np.ndarray | str:
    """What Pillow alone makes of a file: an image, or why it is bad."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "read_header", lambda data: None)
        return outcome(path)


def outcome(path: Path) -> np.ndarray | str:
    try:
        return decode(path)
    except BadImage as bad:
        return bad.reason


def same(a: np.ndarray | str, b: np.ndarray | str) -> bool:
    return a == b if isinstance(a, str) else not isinstance(b, str) and np.array_equal(a, b)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_photo_cut_at_any_byte_is_read_or_refused_as_by_pillow(tmp_path, progressive: bool):
    data, path = encoded(picture(40, 50), progressive=progressive), tmp_path / "x.jpg"
    for length in range(3, len(data), 3):
        path.write_bytes(data[:length])
        assert same(outcome(path), alone(path)), length


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restart", "exif"])
def test_a_damaged_photo_is_read_or_refused_as_by_pillow(tmp_path, kind: str):
    exif = Image.Exif()
    exif[274] = 6
    options = {"progressive": {"progressive": True}, "restart": {"restart_marker_blocks": 2}, "exif": {"exif": exif}}
    data = encoded(picture(40, 50, channels=1 if kind == "grey" else 3), **options.get(kind, {}))
    rng, path, fates = np.random.default_rng(zlib.crc32(kind.encode())), tmp_path / "x.jpg", set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about EXIF blocks
        for _ in range(400):
            damaged = bytearray(data)
            for place in rng.integers(2, len(data), size=rng.integers(1, 4)):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged)
            got = outcome(path)
            assert same(got, alone(path))
            fates.add(isinstance(got, str))
    assert fates == {True, False}


def test_without_simplejpeg_pillow_decodes_with_one_message(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(PLAIN)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    jpeg._decoder.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            images = [decode(tmp_path / "x.jpg") for _ in range(3)]
    finally:
        jpeg._decoder.cache_clear()
    assert len(said) == 1
    assert all(np.array_equal(image, by_pillow(PLAIN)) for image in images)


def test_no_pixel_of_a_too_large_photo_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(PLAIN)
    monkeypatch.setattr(rgb, "MAX_PIXELS", 10)
    monkeypatch.setattr(jpeg, "decode_plain", lambda *_: pytest.fail("it was decoded"))
    assert "64 x 33 pixels" in str(outcome(tmp_path / "x.jpg"))


def test_a_file_too_long_to_be_read_at_once_is_read_by_pillow_from_the_disk(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(PLAIN)
    monkeypatch.setattr(decode_module, "IN_MEMORY_BYTES", 10)
    monkeypatch.setattr(decode_module, "_read_bytes", lambda *_: pytest.fail("it was read"))
    assert np.array_equal(decode(tmp_path / "x.jpg"), by_pillow(PLAIN))
