"""Every kind of file as RGB: the table of docs/data.md, with the expected values from arithmetic."""

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from moco.data import decode as decode_module
from moco.data.decode import FORMATS, BadImage, decode, shown, to_rgb

GREY16 = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)


def saved(folder: Path, name: str, image: Image.Image, **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


def of(pixels: list, dtype: type, mode: str | None = None) -> Image.Image:
    """An image of one row."""
    array = np.array([pixels], dtype=dtype)
    return Image.fromarray(array) if mode is None else Image.frombytes(mode, (array.shape[1], 1), array.tobytes())


def grey(values) -> list[list[list[int]]]:
    return [[[int(value)] * 3 for value in values]]


def on_paper(colour: int, alpha: int) -> int:
    """What is seen of `colour` on white paper."""
    return round((colour * alpha + 255 * (255 - alpha)) / 255)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG file by the book, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def why(path: Path) -> str:
    with pytest.raises(BadImage) as caught:
        decode(path)
    assert caught.value.name == str(path)
    return caught.value.reason


# --- modes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif"])
def test_one_bit_is_black_and_white(tmp_path, ending: str):
    path = saved(tmp_path, f"x.{ending}", of([0, 255], np.uint8).convert("1"))
    assert decode(path).tolist() == grey([0, 255])


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_grey_is_repeated(tmp_path, ending: str):
    assert decode(saved(tmp_path, f"x.{ending}", of([0, 7, 255], np.uint8))).tolist() == grey([0, 7, 255])


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp"])
def test_rgb_stays_as_it_is(tmp_path, ending: str):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    options = {"lossless": True} if ending == "webp" else {}
    assert np.array_equal(decode(saved(tmp_path, f"x.{ending}", Image.fromarray(pixels), **options)), pixels)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path, ending: str):
    path = saved(tmp_path, f"x.{ending}", Image.fromarray(GREY16))
    assert decode(path).tolist() == grey(GREY16[0] // 256)


def test_big_endian_sixteen_bit_grey_keeps_its_high_byte(tmp_path):
    path = saved(tmp_path, "x.tif", Image.frombytes("I;16B", (5, 1), GREY16.astype(">u2").tobytes()))
    assert Image.open(path).mode == "I;16B"
    assert decode(path).tolist() == grey(GREY16[0] // 256)


def test_sixteen_bit_colour_keeps_its_high_bytes(tmp_path):
    values = np.array([1000, 32768, 65535, 256, 511, 513], dtype=">u2")
    (tmp_path / "x.png").write_bytes(png(2, 1, bits=16, colour=2, rows=b"\0" + values.tobytes()))
    assert decode(tmp_path / "x.png").reshape(-1).tolist() == (values // 256).tolist()


def test_thirty_two_bit_integers_within_sixteen_bits_count_as_sixteen(tmp_path):
    path = saved(tmp_path, "x.tif", Image.fromarray(GREY16.astype(np.int32)))
    assert Image.open(path).mode == "I"
    assert decode(path).tolist() == grey(GREY16[0] // 256)


@pytest.mark.parametrize("values", [[-1000, 0, 3000], [0, 70_000, 2**31 - 1]])
def test_integers_beyond_sixteen_bits_are_stretched_from_least_to_greatest(tmp_path, values: list[int]):
    low, high = min(values), max(values)
    expected = [round((value - low) / (high - low) * 255) for value in values]
    assert decode(saved(tmp_path, "x.tif", of(values, np.int32))).tolist() == grey(expected)


def test_floats_from_0_to_1_go_from_black_to_white(tmp_path):
    values = [0.0, 0.25, 0.6, 0.8]
    assert decode(saved(tmp_path, "x.tif", of(values, np.float32))).tolist() == grey([0, 64, 153, 204])


@pytest.mark.parametrize("values", [[-2.0, 0.0, 6.0], [0.0, 1.0, 1.5], [100.0, 1e6, 1e30]])
def test_other_floats_are_stretched_from_least_to_greatest(tmp_path, values: list[float]):
    low, high = min(values), max(values)
    expected = [round((value - low) / (high - low) * 255) for value in values]
    assert decode(saved(tmp_path, "x.tif", of(values, np.float32))).tolist() == grey(expected)


def test_floats_without_a_value_are_black_and_do_not_count(tmp_path):
    values = [np.nan, 0.0, 5.0, 10.0, np.inf, -np.inf]
    assert decode(saved(tmp_path, "x.tif", of(values, np.float32))).tolist() == grey([0, 0, 128, 255, 0, 0])


def test_equal_values_out_of_range_are_black(tmp_path):
    assert decode(saved(tmp_path, "x.tif", of([7.0, 7.0], np.float32))).tolist() == grey([0, 0])


def test_floats_without_any_value_are_a_bad_image(tmp_path):
    assert "finite" in why(saved(tmp_path, "x.tif", of([np.nan, np.inf], np.float32)))


@pytest.mark.parametrize(("ending", "options"), [("png", {}), ("tif", {}), ("webp", {"lossless": True, "exact": True})])
def test_transparent_colour_lies_on_white_paper(tmp_path, ending: str, options: dict):
    pixels = [[10, 20, 30, 0], [10, 20, 30, 100], [10, 20, 30, 255]]
    expected = [[[on_paper(c, pixel[3]) for c in pixel[:3]] for pixel in pixels]]
    assert decode(saved(tmp_path, f"x.{ending}", of(pixels, np.uint8), **options)).tolist() == expected


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_transparent_grey_lies_on_white_paper(tmp_path, ending: str):
    pixels = [[0, 0], [100, 128], [7, 255]]
    path = saved(tmp_path, f"x.{ending}", of(pixels, np.uint8, "LA"))
    assert Image.open(path).mode == "LA"
    assert decode(path).tolist() == grey(on_paper(*pixel) for pixel in pixels)


def test_premultiplied_grey_is_divided_by_its_alpha_first():
    image = Image.frombytes("La", (2, 1), bytes([50, 128, 7, 255]))
    value = 50 * 255 // 128  # Pillow rounds down
    assert to_rgb(image).tolist() == grey([on_paper(value, 128), 7])


def test_sixteen_bit_colour_with_alpha_lies_on_white_paper(tmp_path):
    values = np.array([1000, 32768, 1000, 65535, 256, 511, 513, 0], dtype=">u2")
    (tmp_path / "x.png").write_bytes(png(2, 1, bits=16, colour=6, rows=b"\0" + values.tobytes()))
    assert decode(tmp_path / "x.png").tolist() == [[[3, 128, 3], [255, 255, 255]]]


def palette_image() -> Image.Image:
    image = of([0, 1, 2], np.uint8, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    return image


COLOURS = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


@pytest.mark.parametrize("ending", ["png", "gif", "bmp", "tif"])
def test_a_palette_is_looked_up(tmp_path, ending: str):
    path = saved(tmp_path, f"x.{ending}", palette_image())
    assert Image.open(path).mode == "P"
    assert decode(path).tolist() == [COLOURS]


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_a_transparent_entry_of_a_palette_is_paper(tmp_path, ending: str):
    path = saved(tmp_path, f"x.{ending}", palette_image(), transparency=1)
    assert decode(path).tolist() == [[COLOURS[0], [255, 255, 255], COLOURS[2]]]


def test_a_palette_with_alphas_lies_on_white_paper(tmp_path):
    path = saved(tmp_path, "x.png", palette_image(), transparency=bytes([0, 128, 255]))
    expected = [[255, 255, 255], [on_paper(c, 128) for c in COLOURS[1]], COLOURS[2]]
    assert decode(path).tolist() == [expected]


def test_a_transparent_colour_of_an_rgb_file_is_paper(tmp_path):
    path = saved(tmp_path, "x.png", of([[5, 6, 7], [5, 6, 8]], np.uint8), transparency=(5, 6, 7))
    assert decode(path).tolist() == [[[255, 255, 255], [5, 6, 8]]]


def test_a_transparent_value_of_a_grey_file_is_paper(tmp_path):
    path = saved(tmp_path, "x.png", of([5, 6], np.uint8), transparency=5)
    assert decode(path).tolist() == grey([255, 6])


def test_a_transparent_value_of_a_sixteen_bit_grey_file_is_paper(tmp_path):
    rows = b"\0" + np.array([2000, 2001, 65535], dtype=">u2").tobytes()
    transparent = chunk(b"tRNS", struct.pack(">H", 2000))
    (tmp_path / "x.png").write_bytes(png(3, 1, bits=16, colour=0, rows=rows, extra=transparent))
    assert decode(tmp_path / "x.png").tolist() == grey([255, 2001 // 256, 255])


def printed(ink: list[int]) -> list[int]:
    *colours, black = ink
    return [round((255 - colour) * (255 - black) / 255) for colour in colours]


def test_cmyk_is_light_times_light(tmp_path):
    inks = [[0, 0, 0, 0], [10, 100, 200, 50], [0, 0, 0, 255], [255, 255, 255, 0]]
    path = saved(tmp_path, "x.tif", of(inks, np.uint8, "CMYK"))
    assert np.abs(decode(path)[0].astype(int) - [printed(ink) for ink in inks]).max() <= 1


def test_inverted_cmyk_of_adobe_is_turned_round(tmp_path):
    """Files that say they are Adobe's hold 255 - ink."""
    ink = [10, 100, 200, 50]
    path = saved(tmp_path, "x.jpg", Image.new("CMYK", (16, 16), tuple(ink)), quality=100)
    assert b"Adobe" in path.read_bytes()
    assert np.abs(decode(path).astype(int) - printed(ink)).max() <= 2


def test_cmyk_of_a_photo_is_taken_as_adobes_without_the_mark_too(tmp_path):
    ink = [10, 100, 200, 50]
    data = saved(tmp_path, "x.jpg", Image.new("CMYK", (16, 16), tuple(ink)), quality=100).read_bytes()
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    (tmp_path / "x.jpg").write_bytes(data[:start] + data[start + 2 + length :])
    assert np.abs(decode(tmp_path / "x.jpg").astype(int) - printed(ink)).max() <= 2


def test_ycbcr_is_jpegs(tmp_path):
    y, cb, cr = 100, 150, 90
    path = saved(tmp_path, "x.tif", of([[y, cb, cr]], np.uint8, "YCbCr"))
    assert Image.open(path).mode == "YCbCr"
    exact = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    assert np.abs(decode(path)[0, 0] - np.array(exact)).max() <= 1


def srgb_of_lab(lightness: float) -> float:
    """A neutral colour of CIE L*, as sRGB in 0..255."""
    y = ((lightness + 16) / 116) ** 3 if lightness > 8 else lightness / 903.3
    return 255 * (12.92 * y if y <= 0.0031308 else 1.055 * y ** (1 / 2.4) - 0.055)


def test_lab_is_converted_as_cie_has_it(tmp_path):
    values = [0, 26, 128, 255]
    path = saved(tmp_path, "x.tif", of([[value, 0, 0] for value in values], np.uint8, "LAB"))
    assert Image.open(path).mode == "LAB"
    exact = np.array([[srgb_of_lab(value / 2.55)] * 3 for value in values])
    assert np.abs(decode(path)[0] - exact).max() <= 2


# --- orientation, frames, formats -----------------------------------------------------------------------------------


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores `upright` under an EXIF orientation: the inverse of the turn that viewers apply."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_an_image_is_upright(tmp_path, orientation: int, ending: str):
    upright = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(as_stored(upright, orientation)))
    options = {"lossless": True} if ending == "webp" else {}
    assert np.array_equal(decode(saved(tmp_path, f"x.{ending}", stored, exif=exif, **options)), upright)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photo_is_upright(tmp_path, orientation: int):
    upright = np.repeat(np.repeat(np.array([[0, 250, 0], [120, 0, 60]], np.uint8), 16, 0), 16, 1)
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(as_stored(upright, orientation)))
    got = decode(saved(tmp_path, "x.jpg", stored, exif=exif, quality=100))
    assert got.shape == (32, 48, 3)
    assert np.abs(got[..., 0].astype(int) - upright).max() <= 3


def test_a_sixteen_bit_image_is_upright_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = saved(tmp_path, "x.png", Image.fromarray(np.rot90(GREY16, 1).copy()), exif=exif)
    assert decode(path).tolist() == grey(GREY16[0] // 256)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_leaves_the_image_as_it_lies(tmp_path):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    path = saved(tmp_path, "x.png", Image.fromarray(pixels), exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense")
    assert np.array_equal(decode(path)[..., 0], pixels)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, ending: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    path = saved(tmp_path, f"x.{ending}", frames[0], save_all=True, append_images=frames[1:])
    assert Image.open(path).n_frames == 2
    assert np.abs(decode(path).astype(int) - [250, 0, 0]).max() <= 3


def test_of_a_phones_double_photo_the_first_is_taken(tmp_path):
    """A .jpg of several pictures (MPO), as cameras with two lenses write it."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    path = saved(tmp_path, "x.mpo", frames[0], save_all=True, append_images=frames[1:]).rename(tmp_path / "x.jpg")
    assert np.abs(decode(path).astype(int) - [250, 0, 0]).max() <= 3


def test_the_contents_count_and_not_the_name(tmp_path):
    path = saved(tmp_path, "x.png", Image.new("RGB", (3, 2), (1, 2, 3))).rename(tmp_path / "x.jpg")
    assert decode(path).shape == (2, 3, 3)


@pytest.mark.parametrize("shape", [(1, 1), (4, 9000), (9000, 4)])
def test_any_shape_is_read(tmp_path, shape: tuple[int, int]):
    assert decode(saved(tmp_path, "x.png", Image.new("L", shape[::-1]))).shape == (*shape, 3)


def test_a_broken_colour_profile_is_not_looked_at(tmp_path):
    path = saved(tmp_path, "x.png", Image.new("RGB", (2, 2), (9, 8, 7)), icc_profile=b"not a profile")
    assert decode(path)[0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "CMYK", "YCbCr"])
def test_a_large_picture_is_no_other_than_its_parts(mode: str):
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


def test_reading_leaves_pillows_settings_alone(tmp_path):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    decode(saved(tmp_path, "x.png", Image.new("RGB", (2, 2))))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0"])
def test_a_file_that_is_no_image_is_bad(tmp_path, data: bytes):
    (tmp_path / "x.jpg").write_bytes(data)
    assert why(tmp_path / "x.jpg")


@pytest.mark.parametrize("other", ["PPM", "SGI", "TGA", "ICO", "PCX", "EPS", "PDF"])
def test_formats_that_are_not_allowed_are_bad(tmp_path, other: str):
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png", other)
    assert all(name in why(tmp_path / "x.png") for name in FORMATS)


def test_what_is_not_a_regular_file_is_bad(tmp_path):
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
    (tmp_path / "x.png").write_bytes(png(width, height, bits=8, colour=2, rows=b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert "pixels" in why(tmp_path / "x.png")


def test_pillows_warning_as_an_error_is_a_bad_image(tmp_path):
    (tmp_path / "x.png").write_bytes(png(9460, 9460, bits=8, colour=2, rows=b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "pixels" in why(tmp_path / "x.png")


def test_no_pixel_of_a_too_large_image_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 10)
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
    assert shown("Käse 1.jpg") == "Käse 1.jpg"


# --- damage, and many at once ---------------------------------------------------------------------------------------


def seed_files() -> dict[str, bytes]:
    """A file of each kind, to be damaged."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 4), dtype=np.uint8)
    rgb, files = Image.fromarray(noise[..., :3]), {}
    kinds: dict[str, tuple[Image.Image, dict]] = {
        "baseline.jpg": (rgb, {}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "grey.jpg": (rgb.convert("L"), {}),
        "8.png": (rgb, {}),
        "16.png": (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), {}),
        "1.png": (rgb.convert("1"), {}),
        "palette.png": (rgb.convert("P"), {"transparency": 3}),
        "alpha.png": (Image.fromarray(noise), {}),
        "still.webp": (Image.fromarray(noise), {}),
        "moving.webp": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "x.gif": (rgb.convert("P"), {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "raw.tif": (rgb, {}),
        "deflate.tif": (rgb, {"compression": "tiff_adobe_deflate"}),
        "x.bmp": (rgb, {}),
    }
    exif = Image.Exif()
    exif[274] = 6
    for name, (image, options) in kinds.items():
        buffer = io.BytesIO()
        more = {"exif": exif} if name == "baseline.jpg" else {}
        image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name.split(".")[1].upper()), **options, **more)
        files[name] = buffer.getvalue()
    return files


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with some bytes changed, cut off, taken out or put elsewhere; half of the time near its start."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, len(out) if rng.random() < 0.5 else min(len(out), 64)))
        match rng.integers(5):
            case 0:
                out[place] = int(rng.integers(256))
            case 1:
                out[place : place + 4] = rng.bytes(4)
            case 2:
                del out[place : place + int(rng.integers(1, 20))]
            case 3:
                del out[max(place, 16) :]
            case _:
                out[place:place] = out[: int(rng.integers(1, 40))]
        if not out:
            break
    return bytes(out)


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
