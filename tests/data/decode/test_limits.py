"""Files that ask for too much are refused before Pillow makes what they ask for."""

import io
import struct

import pytest
from PIL import Image

from moco.data.decode import decode as decode_module
from moco.data.decode import limits
from moco.data.decode.decode import BadImage, decode
from moco.data.decode.limits import check_bounds
from tests.data.bombs import BOMBS, HARMLESS, chunk, jpeg, liar, many_scans, small_png, tiff


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused(tmp_path, name: str):
    """How much memory that takes: tests/faults/images.py."""
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
}


@pytest.mark.parametrize("reason", GUARDED)
def test_what_is_refused_is_said(reason: str):
    with pytest.raises(ValueError, match=reason):
        check_bounds(io.BytesIO(GUARDED[reason]))


@pytest.mark.parametrize("reason", ["segments", "scans", "chunks", "strips or tiles", "an entry of"])
def test_without_the_bounds_pillow_takes_it(tmp_path, monkeypatch, reason: str):
    """The bound does stand between the file and Pillow."""
    (tmp_path / "x").write_bytes(GUARDED[reason] + bytes(100_010 if reason == "strips or tiles" else 16))
    with pytest.raises(BadImage, match=reason):
        decode(tmp_path / "x")
    monkeypatch.setattr(decode_module, "check_bounds", lambda file: None)
    assert decode(tmp_path / "x").shape[2] == 3


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
def test_what_lies_within_the_bounds_is_read(tmp_path, name: str):
    (tmp_path / "x").write_bytes(at_the_bound()[name])
    assert decode(tmp_path / "x").shape[2] == 3


def test_marks_behind_the_end_of_a_photo_do_not_count():
    """Telephones append films."""
    check_bounds(io.BytesIO(jpeg(progressive=True) + b"\xff\xda\0\2" * 2000))


def test_an_end_mark_within_a_segment_is_none():
    data = many_scans(101, side=16)
    place = data.index(b"\xff\xda")
    with pytest.raises(ValueError, match="scans"):
        check_bounds(io.BytesIO(data[:place] + b"\xff\xfe\0\4\xff\xd9" + data[place:]))


@pytest.mark.parametrize("block", [2, 3, 7])
def test_marks_are_found_across_the_blocks_that_are_read(monkeypatch, block: int):
    monkeypatch.setattr(limits, "BLOCK", block)
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
