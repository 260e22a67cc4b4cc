"""All bands of a file in full depth, held against the arrays that were written, by tifffile, imagecodecs and NumPy."""

import io
import random
import resource
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from moco.data.decode.bands import as_bands, decode_bands, to_picture, to_unit

RNG = np.random.default_rng(0)


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return RNG.normal(0, 1000, shape).astype(kind)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return RNG.integers(low, high, shape, dtype=kind, endpoint=True)


def tiff(array: np.ndarray, **options) -> io.BytesIO:
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack", **options)
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 4, 13])
def test_a_tiff_has_the_values_that_were_written(bands: int, dtype: str, compression):
    array = values((9, 14, bands), dtype)
    for plan in ("contig", "separate"):
        stored = array if plan == "contig" else array.transpose(2, 0, 1)
        options = {"planarconfig": plan} if bands > 1 else {}
        read = decode_bands(tiff(stored if bands > 1 else array[:, :, 0], compression=compression, **options))
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_bands_that_are_pages_and_ome_tiff_are_read():
    array = values((5, 20, 30), "uint16")
    np.testing.assert_array_equal(decode_bands(tiff(array)), array.transpose(1, 2, 0))
    file = io.BytesIO()
    tifffile.imwrite(file, array, ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    np.testing.assert_array_equal(decode_bands(io.BytesIO(file.getvalue())), array.transpose(1, 2, 0))


def test_tiles_and_big_tiff_are_read():
    array = values((70, 90, 3), "uint16")
    np.testing.assert_array_equal(decode_bands(tiff(array, tile=(32, 32), planarconfig="contig", bigtiff=True)), array)


@pytest.mark.parametrize("axes", ["TYX", "ZYX"])
def test_a_series_over_time_or_depth_is_refused_by_name(axes: str):
    file = io.BytesIO()
    tifffile.imwrite(file, values((4, 10, 10), "uint8"), ome=True, metadata={"axes": axes}, photometric="minisblack")
    with pytest.raises(ValueError, match=rf"axes {axes[0]} 4.*each plane"):
        decode_bands(io.BytesIO(file.getvalue()))


def test_a_numpy_array_is_read_with_bands_first_or_last():
    array = values((12, 10, 3), "float32")
    for stored in (array, array.transpose(2, 0, 1)):
        file = io.BytesIO()
        np.save(file, stored)
        np.testing.assert_array_equal(decode_bands(io.BytesIO(file.getvalue())), array)


def test_a_png_of_16_bits_keeps_them():
    grey, colour = values((8, 6), "uint16"), values((8, 6, 3), "uint16")
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    np.testing.assert_array_equal(decode_bands(io.BytesIO(file.getvalue()))[:, :, 0], grey)
    np.testing.assert_array_equal(decode_bands(io.BytesIO(imagecodecs.png_encode(colour))), colour)


def test_a_picture_has_its_own_channels_turned_upright():
    array, file = values((8, 6, 3), "uint8"), io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # turn by a quarter to the right
    Image.fromarray(array).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_bands(io.BytesIO(file.getvalue())), np.rot90(array, -1))


def test_values_are_mapped_to_0_and_1_band_by_band():
    raw = np.array([[[-5, 100], [0, 150], [10, 200], [20, 300]]], dtype=np.int16)
    np.testing.assert_array_equal(to_unit(raw, [(0, 20), (100, 200)])[0], [[0, 0], [0, 0.5], [0.5, 1], [1, 1]])
    odd = np.array([[[np.nan], [np.inf], [-np.inf], [0.25]]], dtype=np.float32)
    np.testing.assert_array_equal(to_unit(odd, [(0.0, 1.0)])[0, :, 0], [0, 1, 0, 0.25])
    with pytest.raises(ValueError, match=r"2 bands: expected 3"):
        to_unit(raw, [(0, 1)] * 3)


def test_large_integers_keep_their_differences():
    raw = np.array([[[2**31], [2**31 + 1], [2**31 + 2]]], dtype=np.uint32)  # float32 cannot tell them apart
    np.testing.assert_array_equal(to_unit(raw, [(2**31, 2**31 + 2)])[0, :, 0], [0, 0.5, 1])


def test_a_picture_shows_the_first_three_bands_or_grey():
    unit = RNG.random((4, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(to_picture(unit), np.round(unit[:, :, :3] * 255))
    np.testing.assert_array_equal(to_picture(unit[:, :, :1]), np.round(unit[:, :, [0, 0, 0]] * 255))


@pytest.mark.parametrize(
    "array", [np.zeros(5), np.zeros((2, 3, 4, 5)), np.zeros((0, 3)), np.array([["a"]]), np.zeros((70, 70, 70))]
)
def test_an_array_that_is_no_image_is_refused(array: np.ndarray):
    with pytest.raises(ValueError, match=r"expected"):
        as_bands(array, "an array")


def npy_header(shape: str, descr: str = "<f8") -> io.BytesIO:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return io.BytesIO(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode())


HOSTILE = {
    "claims a terabyte": npy_header("(1000000, 1000000)"),
    "claims more than it has": npy_header("(1000, 1000)"),
    "objects": npy_header("(3, 3)", "|O"),
    "negative": npy_header("(-3, 3)"),
    "a tiff that claims 10 GB": tiff(np.zeros((1, 1), np.uint8)),
    "an empty tiff": io.BytesIO(b"II*\0" + bytes(4)),
    "a loop of pages": io.BytesIO(b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0"),
}
data = bytearray(HOSTILE["a tiff that claims 10 GB"].getvalue())
directory = int.from_bytes(data[4:8], "little")
for tag in (256, 257):  # width and height
    at = data.find(tag.to_bytes(2, "little"), directory)
    data[at + 2 : at + 12] = b"\4\0\1\0\0\0" + (100_000).to_bytes(4, "little")
HOSTILE["a tiff that claims 10 GB"] = io.BytesIO(bytes(data))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_before_memory_is_taken(what: str):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Exception):  # noqa: B017  # of any kind: callers make a BadImage of it
        decode_bands(io.BytesIO(HOSTILE[what].getvalue()))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # [kB]


def test_a_strip_that_unpacks_to_much_more_than_its_pixels_takes_no_more_memory():
    packed = zlib.compress(bytes(2**28), 1)  # 1 MB
    file = bytearray(tiff(np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64).getvalue())
    at = int.from_bytes(file[4:8], "little")
    counts = {273: len(file), 279: len(packed)}  # where the strip is, and its length
    for tag, value in counts.items():
        place = file.find(tag.to_bytes(2, "little"), at)
        file[place + 2 : place + 12] = b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read = decode_bands(io.BytesIO(bytes(file) + packed))
    except Exception:
        pass
    else:
        assert read.shape == (64, 64, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # [kB]


def test_damaged_files_give_an_array_or_an_error():
    random_numbers = random.Random(0)
    whole = [
        tiff(values((16, 16, 5), "uint16"), compression=how, planarconfig="contig").getvalue() for how in (None, "zlib")
    ]
    for _ in range(300):
        damaged = bytearray(random_numbers.choice(whole))
        for _ in range(random_numbers.randrange(1, 6)):
            damaged[random_numbers.randrange(len(damaged))] = random_numbers.randrange(256)
        try:
            read = decode_bands(io.BytesIO(bytes(damaged[: random_numbers.randrange(8, len(damaged) + 1)])))
        except Exception:
            continue
        assert read.ndim == 3


@pytest.mark.parametrize("bigtiff", [False, True])
def test_pages_that_go_round_in_a_circle_or_are_very_many_are_refused(bigtiff: bool, monkeypatch):
    whole = bytearray(tiff(values((3, 20, 30), "uint8"), bigtiff=bigtiff, metadata=None).getvalue())
    assert decode_bands(io.BytesIO(bytes(whole))).shape == (20, 30, 3)
    offset, width, count, entry = (8, 8, 8, 20) if bigtiff else (4, 4, 2, 12)
    pages, at = [], offset
    while place := int.from_bytes(whole[at : at + width], "little"):
        pages.append(place)
        at = place + count + entry * int.from_bytes(whole[place : place + count], "little")
    assert len(pages) == 3
    monkeypatch.setattr("moco.data.decode.tiff.MAX_PAGES", 2)
    with pytest.raises(ValueError, match="more than 2 pages"):
        decode_bands(io.BytesIO(bytes(whole)))
    monkeypatch.undo()
    whole[at : at + width] = pages[1].to_bytes(width, "little")  # after the last page comes the second again
    with pytest.raises(ValueError, match="circle"):
        decode_bands(io.BytesIO(bytes(whole)))
