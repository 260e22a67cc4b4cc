"""Files that ask for too much are refused before Pillow makes what they ask for."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from moco.data.check.inspect_file import inspect_file
from moco.data.decode import decode as decode_module
from moco.data.decode import limits, rgb
from moco.data.decode.decode import BadImage, decode
from moco.data.decode.limits import check_bounds
from tests.data.bombs import BOMBS, HARMLESS, bmp, chunk, gif, gif_frame, jpeg, liar, many_scans, riff, small_png, tiff


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused(tmp_path, name: str):
    """How much memory that takes: tests/faults/damaged_images.py."""
    (tmp_path / "x").write_bytes(BOMBS[name]())
    with pytest.raises(BadImage):
        decode(tmp_path / "x")


@pytest.mark.parametrize("name", HARMLESS)
def test_a_long_file_is_not_a_bomb(tmp_path, name: str):
    (tmp_path / "x").write_bytes(HARMLESS[name]())
    assert decode(tmp_path / "x").shape[2] == 3


GUARDED = {
    "segments": b"\xff\xd8" + b"\xff\xfe\0\2" * 1001 + jpeg()[2:],
    "scans": many_scans(101, side=16),
    "cut short": liar(jpeg(), 9400, 9400),
    "chunks": small_png(chunk(b"abCd", b"") * 200_001),
    "strips or tiles": tiff(1, 100_001, (278, 4, [1]), (273, 4, [8] * 100_001), (279, 4, [1] * 100_001)),
    "an entry of": tiff(4, 4, (700, 1, [0] * (2**26 + 1))),
    "more data in a JPEG file": jpeg()[:-2] + bytes(2**21),
    "of WebP, AVIF or the like": riff(2**26 + 16),
}


@pytest.mark.parametrize("reason", GUARDED)
def test_files_beyond_the_limits_are_refused_with_the_reason(reason: str):
    with pytest.raises(ValueError, match=reason):
        check_bounds(io.BytesIO(GUARDED[reason]))


@pytest.mark.parametrize("reason", ["segments", "scans", "chunks", "strips or tiles", "an entry of"])
def test_without_our_limits_pillow_decodes_a_bomb(tmp_path, monkeypatch, reason: str):
    """The bound does stand between the file and Pillow."""
    (tmp_path / "x").write_bytes(GUARDED[reason] + bytes(100_010 if reason == "strips or tiles" else 16))
    with pytest.raises(BadImage, match=reason):
        decode(tmp_path / "x")
    monkeypatch.setattr(decode_module, "check_bounds", lambda file: None)
    assert decode(tmp_path / "x").shape[2] == 3


def saved(mode: str, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (100, 100)).save(buffer, form, **options)
    return buffer.getvalue()


def one_strip(dtype: str, bands: int) -> bytes:
    buffer, shape = io.BytesIO(), (100, 100, bands) if bands > 1 else (100, 100)
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]} if bands > 1 else {}
    tifffile.imwrite(buffer, np.zeros(shape, dtype), compression="zlib", rowsperstrip=100, **options)
    return buffer.getvalue()


KINDS = {  # and the bytes a pixel that decoding takes, as measured at 9,400 x 9,400
    "WebP": (saved("RGB", "WEBP"), 16.1),
    "AVIF with alpha": (saved("RGBA", "AVIF", subsampling="4:4:4"), 13.2),
    "progressive CMYK": (saved("CMYK", "JPEG", progressive=True), 12.0),
    "RGBA of 16 bits in one strip": (one_strip("u2", 4), 12.1),
    "floats in one strip": (one_strip("f4", 1), 8.1),
    "PNG": (saved("RGBA", "PNG"), 7.2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_take_more_memory_a_pixel_may_have_fewer_pixels(tmp_path, monkeypatch, kind: str):
    data, a_pixel = KINDS[kind]
    (tmp_path / "x").write_bytes(data)
    assert decode(tmp_path / "x").shape == (100, 100, 3)
    filled = max(100 * 100 * a_pixel / 9, 100 * 100)  # pixels at 9 bytes each, which is what memory is allowed for
    monkeypatch.setattr(rgb, "MAX_PIXELS", int(1.4 * filled))
    assert decode(tmp_path / "x").shape == (100, 100, 3)
    monkeypatch.setattr(rgb, "MAX_PIXELS", int(filled))
    if a_pixel < 9:
        assert decode(tmp_path / "x").shape == (100, 100, 3)
    else:
        with pytest.raises(BadImage, match=r"a pixel.*: make it smaller .* or cut it into pieces"):
            decode(tmp_path / "x")


SLOW = {
    "JPEG": jpeg()[:20] + bytes(5000) + jpeg()[20:],
    "GIF": gif((1, 1), bytes(5000) + gif_frame(1, 1)),
    "BMP": bmp(10, 10, bytes(5000) + b"\x0a\x01\0\0" * 10, bits=8, packed=1),
}


@pytest.mark.parametrize("kind", SLOW)
def test_files_that_pillow_reads_byte_by_byte_are_refused(tmp_path, monkeypatch, kind: str):
    (tmp_path / "x").write_bytes(SLOW[kind])
    assert decode(tmp_path / "x").shape[2] == 3
    monkeypatch.setattr(limits, "MAX_READS", 2000)
    with pytest.raises(BadImage, match="2,000 reads"):
        decode(tmp_path / "x")


def test_check_looks_at_a_gif_whose_end_is_zeros(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_READS", 2000)
    (tmp_path / "x.gif").write_bytes(gif((1, 1), gif_frame(1, 1))[:-1] + bytes(5000))
    assert not inspect_file(str(tmp_path / "x.gif"), compare=False, deep=False).bad


def at_the_bound() -> dict[str, bytes]:
    wide = tiff(1, 100_000, (278, 4, [1]), (273, 4, [8] * 100_000), (279, 4, [1] * 100_000), tail=bytes(100_000))
    white = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(white, "JPEG", progressive=True, optimize=True, subsampling="4:2:0")
    return {
        "segments": jpeg()[:2] + b"\xff\xfe\0\2" * 980 + jpeg()[2:],
        "scans": many_scans(88, side=16),  # and those that it has anyway
        "chunks": small_png(chunk(b"abCd", b"") * 199_990),
        "strips": wide,
        "one colour": white.getvalue(),
    }


@pytest.mark.parametrize("name", at_the_bound())
def test_files_within_the_limits_are_read(tmp_path, name: str):
    (tmp_path / "x").write_bytes(at_the_bound()[name])
    assert decode(tmp_path / "x").shape[2] == 3


def test_marks_behind_the_end_of_a_photo_do_not_count():
    """Telephones append films."""
    check_bounds(io.BytesIO(jpeg(progressive=True) + b"\xff\xda\0\2" * 2000))


def test_an_end_mark_within_a_segment_does_not_count():
    data = many_scans(101, side=16)
    place = data.index(b"\xff\xda")
    with pytest.raises(ValueError, match="scans"):
        check_bounds(io.BytesIO(data[:place] + b"\xff\xfe\0\4\xff\xd9" + data[place:]))


@pytest.mark.parametrize("block", [2, 3, 7])
def test_marks_are_found_across_the_blocks_that_are_read(monkeypatch, block: int):
    monkeypatch.setattr(limits, "SEARCH_BLOCK", block)
    with pytest.raises(ValueError, match="scans"):
        check_bounds(io.BytesIO(many_scans(101, side=16)))


def test_tiles_of_a_bigtiff_in_the_other_byte_order_count():
    entry = struct.pack(">HHQQ", 324, 4, 10**6, 64)
    data = b"MM\0\x2b\0\x08\0\0" + struct.pack(">QQ", 16, 1) + entry
    with pytest.raises(ValueError, match="1,000,000 strips or tiles"):
        check_bounds(io.BytesIO(data))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0", b"II*\0", b"MM\0*\0\0\0\x08\0\x09", b"BM"]
)
def test_other_damage_is_left_to_the_decoder(data: bytes):
    check_bounds(io.BytesIO(data))


def test_the_file_is_at_its_beginning_afterwards():
    for data in (jpeg(), small_png(b""), tiff(4, 4), b"GIF89a"):
        file = io.BytesIO(data)
        check_bounds(file)
        assert file.tell() == 0
