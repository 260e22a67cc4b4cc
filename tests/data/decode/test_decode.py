"""Every kind of file as RGB, and what becomes of files that are no good."""

import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from moco.data.decode import rgb
from moco.data.decode.decode import IMAGE_FORMATS, BadImage, decode, to_rgb
from moco.text import escape
from tests.data.bombs import png
from tests.data.damaged_files import damaged, seed_files
from tests.data.golden import CASES, Case, grey, on_paper, row


def saved(folder: Path, name: str, image: Image.Image, **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


def why(path: Path) -> str:
    with pytest.raises(BadImage) as caught:
        decode(path)
    assert caught.value.name == str(path)
    return caught.value.reason


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_every_kind_of_file_becomes_what_the_table_says(tmp_path, case: Case):
    (tmp_path / "x").write_bytes(case.data)
    got = decode(tmp_path / "x")
    assert got.shape == case.pixels.shape
    assert np.abs(got - case.pixels.astype(float)).max() <= case.within


def test_the_table_has_more_than_sixty_kinds():
    assert len({case.name for case in CASES}) == len(CASES) > 60


def test_premultiplied_grey_is_divided_by_its_alpha_first():
    image = Image.frombytes("La", (2, 1), bytes([50, 128, 7, 255]))
    value = 50 * 255 // 128  # Pillow rounds down
    assert np.array_equal(to_rgb(image), grey([on_paper(value, 128), 7]))


def test_floats_without_any_value_are_a_bad_image(tmp_path):
    assert "finite" in why(saved(tmp_path, "x.tif", row([np.nan, np.inf], np.float32)))


def test_the_contents_count_and_not_the_name(tmp_path):
    path = saved(tmp_path, "x.png", Image.new("RGB", (3, 2), (1, 2, 3))).rename(tmp_path / "x.jpg")
    assert decode(path).shape == (2, 3, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "CMYK", "YCbCr"])
def test_a_large_picture_decodes_like_its_parts(mode: str):
    """It is laid on paper in bands of rows."""
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1000, 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert("RGB" if mode == "YCbCr" else mode).convert(mode)
    if mode in ("P", "L", "RGB"):
        image.info["transparency"] = tuple(noise[0, 0, :3].tolist()) if mode == "RGB" else 7
    parts = [image.crop((0, top, 1000, top + 100)) for top in range(0, 1100, 100)]
    assert np.array_equal(to_rgb(image), np.concatenate([to_rgb(part) for part in parts]))


# --- bad images -----------------------------------------------------------------------------------------------------


def test_a_truncated_photo_is_bad(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, "x.jpg", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:-1000])
    assert "truncated" in why(path)


def test_reading_does_not_change_pillows_settings(tmp_path):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    decode(saved(tmp_path, "x.png", Image.new("RGB", (2, 2))))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0"])
def test_a_file_that_is_not_an_image_is_a_bad_image(tmp_path, data: bytes):
    (tmp_path / "x.jpg").write_bytes(data)
    assert why(tmp_path / "x.jpg")


@pytest.mark.parametrize("other", ["TGA"])
def test_a_format_that_is_not_known_is_bad(tmp_path, other: str):
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png", other)
    assert all(name in why(tmp_path / "x.png") for name in IMAGE_FORMATS)


def test_a_file_that_is_not_regular_is_a_bad_image(tmp_path):
    assert "directory" in why(tmp_path)
    assert "no such file" in why(tmp_path / "x.jpg")
    os.mkfifo(tmp_path / "fifo.jpg")
    assert "regular" in why(tmp_path / "fifo.jpg")
    assert "regular" in why(Path("/dev/zero"))


def test_a_file_that_may_not_be_read_is_bad(tmp_path):
    path = saved(tmp_path, "x.png", Image.new("RGB", (2, 2)))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    assert "permission" in why(path)


@pytest.mark.parametrize(
    ("width", "height"), [(9460, 9460), (30_000, 30_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)]
)
def test_a_header_that_claims_too_many_pixels_is_bad_at_once(tmp_path, width: int, height: int):
    (tmp_path / "x.png").write_bytes(png(width, height, bits=8, colour=2, pixels=b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert "pixels" in why(tmp_path / "x.png")


def test_pillows_warning_as_an_error_is_a_bad_image(tmp_path):
    (tmp_path / "x.png").write_bytes(png(9460, 9460, bits=8, colour=2, pixels=b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "pixels" in why(tmp_path / "x.png")


def test_the_error_for_a_too_large_image_says_what_to_do(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for side in (9460, 30_000):  # Pillow warns of the one and raises for the other
            (tmp_path / "x.png").write_bytes(png(side, side, pixels=b"\0"))
            assert "make it smaller" in why(tmp_path / "x.png")


def test_no_pixel_of_a_too_large_image_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(rgb, "MAX_PIXELS", 10)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    assert "4 x 3 pixels" in why(saved(tmp_path, "x.png", Image.new("RGB", (4, 3))))


def test_a_file_of_too_many_bytes_is_bad(tmp_path):
    with open(tmp_path / "x.webp", "wb") as file:
        file.truncate(2**30 + 1)  # a hole: takes no room
    assert "bytes" in why(tmp_path / "x.webp")


@pytest.mark.parametrize(
    "kind", [OSError, SyntaxError, ValueError, struct.error, MemoryError, KeyError, RecursionError]
)
def test_whatever_pillow_raises_is_a_bad_image(tmp_path, monkeypatch, kind: type[Exception]):
    def fail(*_, **__):
        raise kind("so it is")

    path = saved(tmp_path, "x.png", Image.new("RGB", (2, 2)))
    monkeypatch.setattr(Image, "open", fail)
    assert "so it is" in why(path)


def test_an_interrupt_is_not_a_bad_image(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    path = saved(tmp_path, "x.png", Image.new("RGB", (2, 2)))
    monkeypatch.setattr(Image, "open", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(path)


def test_the_message_of_a_bad_image_prints_no_control_characters():
    assert str(BadImage("a\x1b[31m\n.jpg", "cut")).isprintable()
    assert escape("Käse 1.jpg") == "Käse 1.jpg"


# --- damage, and many at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", seed_files())
def test_a_damaged_file_is_an_image_or_a_bad_image(tmp_path, name: str):
    data, rng = seed_files()[name], np.random.default_rng(zlib.crc32(name.encode()))
    bad = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            (tmp_path / "x").write_bytes(damaged(data, rng))
            try:
                image = decode(tmp_path / "x")
            except BadImage as problem:
                bad += bool(problem.reason)
            else:
                assert image.dtype == np.uint8
                assert image.shape[2] == 3
    assert bad  # the damage does reach the decoder


def test_threads_that_decode_at_once_get_what_one_gets(tmp_path):
    paths = [tmp_path / name for name in seed_files()]
    for path in paths:
        path.write_bytes(seed_files()[path.name])
    alone, wrong = [decode(path) for path in paths], []

    def work():
        for _ in range(5):
            again = [decode(path) for path in paths]
            wrong.extend(not np.array_equal(a, b) for a, b in zip(again, alone, strict=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 4 * 5 * len(paths)
    assert not any(wrong)
