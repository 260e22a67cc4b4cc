"""PBM, PGM and PPM files, by their definition, and beside Pillow where it is exact."""

import io

import numpy as np
import pytest
from PIL import Image

from moco.data.decode import ppm
from moco.data.decode.decode import BadImage, decode
from moco.data.decode.ppm import decode_ppm

NOISE = np.random.default_rng(0).integers(0, 256, (5, 11, 3), dtype=np.uint8)


def read(data: bytes) -> np.ndarray:
    return decode_ppm(io.BytesIO(data))


def grey(values: list) -> list:
    return [[[value] * 3 for value in row] for row in values]


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_ppm_files_of_pillow_have_the_pixels_that_pillow_wrote(tmp_path, mode: str):
    image = Image.fromarray(NOISE).convert(mode)
    image.save(tmp_path / "x.ppm", "PPM")
    assert np.array_equal(decode(tmp_path / "x.ppm"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("greatest", [1, 15, 100, 254])
def test_other_greatest_values_are_scaled_as_pillow_does(greatest: int):
    data = b"P6 11 5 %d\n" % greatest + (NOISE % (greatest + 1)).tobytes()
    assert np.array_equal(read(data), np.asarray(Image.open(io.BytesIO(data))))


def test_a_16_bit_value_becomes_its_high_byte():
    values = np.array([0, 255, 256, 32768, 65535], dtype=">u2")
    assert read(b"P5 5 1 65535\n" + values.tobytes()).tolist() == grey([[0, 0, 1, 128, 255]])
    colours = np.array([1000, 32768, 65535], dtype=">u2")
    assert read(b"P6 1 1 65535\n" + colours.tobytes()).tolist() == [[[3, 128, 255]]]


def test_12_bits_are_scaled():
    assert read(b"P5 3 1 4095\n" + np.array([0, 2048, 4095], dtype=">u2").tobytes()).tolist() == grey([[0, 128, 255]])


def test_the_plain_kinds_are_read():
    assert read(b"P1\n# bits\n3 2\n1 0 1\n010").tolist() == grey([[0, 255, 0], [255, 0, 255]])
    assert read(b"P2 2 1 15\n15 # white\n 0\n").tolist() == grey([[255, 0]])
    assert read(b"P3 1 2 255\n1 2 3\n4 5 6").tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


def test_comments_may_stand_in_the_header():
    assert read(b"P5 # a camera's\n2# width\n1\n255\n\x07\x09").tolist() == grey([[7, 9]])


BAD = {
    b"P6 2 2 255\n" + bytes(11): "cut short",
    b"P3 2 2 255\n1 2 3": "cut short",
    b"P5 0 1 255\n": "0 x 1",
    b"P5 1 1 65536\n0": "65,536",
    b"P6 x": "header",
    b"P5 100000 100000 255\n": "make it smaller",
    b"P2 1 1 255\n-7": "numbers",
    b"P5 # " + bytes(5000): "header",
}


@pytest.mark.parametrize("data", BAD)
def test_damaged_ppm_files_are_errors_with_the_reason(tmp_path, data: bytes):
    (tmp_path / "x.ppm").write_bytes(data)
    with pytest.raises(BadImage, match=BAD[data]):
        decode(tmp_path / "x.ppm")


def test_long_texts_are_refused(monkeypatch):
    monkeypatch.setattr(ppm, "PLAIN", 10)
    with pytest.raises(ValueError, match="binary PPM"):
        read(b"P2 9 1 255\n" + b"7 " * 9)
