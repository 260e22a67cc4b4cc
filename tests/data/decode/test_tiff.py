"""TIFF files, held against tifffile: interleaved and plane by plane, in 8 and 16 bits; and bands that are no alpha."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from moco.data.decode.decode import BadImage, decode

RNG = np.random.default_rng(0)


def written(file: Path, array: np.ndarray, **options) -> np.ndarray:
    """What tifffile reads of `array` [H, W, C], which it wrote: [H, W, C]."""
    planes = options.get("planarconfig") == "separate"
    tifffile.imwrite(file, np.moveaxis(array, -1, 0).copy() if planes else array, metadata=None, **options)
    seen = tifffile.imread(file)
    return np.moveaxis(seen, 0, -1) if planes else seen


def bytes_of(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)


def noise(channels: int, dtype: type) -> np.ndarray:
    array = RNG.integers(0, np.iinfo(dtype).max, (33, 29, channels), dtype=dtype, endpoint=True)
    if channels == 4:
        array[..., 3] = np.iinfo(dtype).max
    return array


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
def test_colours_are_what_tifffile_reads(tmp_path, planes: str, dtype: type, compression: str | None):
    for channels, order, tile in itertools.product((3, 4), "<>", (None, (16, 16))):
        array = noise(channels, dtype)
        more = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        seen = written(
            tmp_path / "x.tif", array, photometric="rgb", planarconfig=planes, compression=compression,
            byteorder=order, tile=tile, **more,
        )  # fmt: skip
        assert np.array_equal(seen, array)
        assert np.array_equal(decode(tmp_path / "x.tif"), bytes_of(seen[..., :3])), (channels, order, tile)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_cmyk_in_planes_equals_interleaved_cmyk(tmp_path, compression: str | None):
    array = RNG.integers(0, 256, (33, 29, 4), dtype=np.uint8)
    for name, planes in (("a.tif", "separate"), ("b.tif", "contig")):
        written(tmp_path / name, array, photometric="separated", planarconfig=planes, compression=compression)
    assert np.array_equal(decode(tmp_path / "a.tif"), decode(tmp_path / "b.tif"))


def with_another_tag(data: bytes, old: int, new: int) -> bytes:
    """A TIFF file in which an entry, one of the 16-bit number 2, has another tag."""
    order = "little" if data.startswith(b"II") else "big"
    rest = (3).to_bytes(2, order) + (1).to_bytes(4, order) + (2).to_bytes(2, order)
    assert data.count(old.to_bytes(2, order) + rest) == 1
    return data.replace(old.to_bytes(2, order) + rest, new.to_bytes(2, order) + rest)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_one_band_stored_as_a_plane_equals_an_interleaved_one(tmp_path, order: str, dtype: type):
    values = (RNG.random((7, 9)) * (1 if dtype is np.float32 else np.iinfo(dtype).max)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order, metadata=None, extratags=[(65_000, 3, 1, 2, True)])
    (tmp_path / "b.tif").write_bytes(with_another_tag((tmp_path / "a.tif").read_bytes(), 65_000, 284))
    with Image.open(tmp_path / "b.tif") as image:
        assert image.tag_v2[284] == 2
    assert np.array_equal(decode(tmp_path / "a.tif"), decode(tmp_path / "b.tif"))


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
        (3, {"photometric": "cielab"}),
    ],
    ids=["premultiplied", "grey and alpha", "CIELAB"],
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_that_pillow_reads_wrongly_are_bad_with_the_reason(tmp_path, channels, options, compression):
    array = RNG.integers(0, 256, (channels, 9, 8), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", array, planarconfig="separate", compression=compression, **options)
    with pytest.raises(BadImage, match="plane by plane"):
        decode(tmp_path / "x.tif")


def test_unsigned_integers_above_two_to_the_31_are_not_negative(tmp_path):
    values = np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32)
    tifffile.imwrite(tmp_path / "x.tif", values, byteorder="<")
    assert decode(tmp_path / "x.tif")[0, :, 0].tolist() == [0, round(2**31 / (2**32 - 1) * 255), 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_a_fourth_band_is_alpha_only_if_a_tag_says_so(tmp_path, dtype: type, planes: str):
    """Red, green, blue and infrared, as remote sensing stores them."""
    array = RNG.integers(0, np.iinfo(dtype).max, (33, 29, 4), dtype=dtype)
    written(tmp_path / "x.tif", array, photometric="rgb", planarconfig=planes, extrasamples=["unassalpha"])
    (tmp_path / "x.tif").write_bytes(with_another_tag((tmp_path / "x.tif").read_bytes(), 338, 65_000))
    assert np.array_equal(decode(tmp_path / "x.tif"), bytes_of(array[..., :3]))
