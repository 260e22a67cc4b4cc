"""Without a guard of images, tries are lost. With it none are: see test_matrix.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from moco.data.augment import crop
from moco.data.decode import decode as decode_module
from moco.data.decode import jpeg, limits, rgb
from moco.data.decode.decode import BadImage
from moco.data.loader.bad_images import Quarantine
from tests.data.bombs import bmp, png, zeros
from tests.faults import damaged_images, huge_images
from tests.faults.matrix import Tally

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")]


def lost(tally: Tally) -> int:
    assert tally.tried == tally.survived + tally.lost > 0
    return tally.lost


def test_without_turning_every_exception_into_a_bad_image_something_is_lost(tmp_path, monkeypatch):
    def careless(path: Path) -> np.ndarray:
        try:
            with decode_module.open_file(path) as file:
                return decode_module.decode_file(file)
        except OSError as error:  # what Pillow documents
            raise BadImage(str(path), str(error)) from error

    monkeypatch.setattr(damaged_images, "decode", careless)
    assert lost(damaged_images.fuzzed(100, tmp_path)) > 0


def test_without_strict_checks_the_two_decoders_differ(tmp_path, monkeypatch):
    strict = jpeg._decoder()
    monkeypatch.setattr(jpeg, "_decoder", lambda: lambda data, colorspace, strict: simple(data, colorspace))

    def simple(data: bytes, colorspace: str) -> np.ndarray:
        return strict(data, colorspace=colorspace, strict=False)

    assert lost(damaged_images.fuzzed(200, tmp_path)) > 0


def test_without_quarantine_a_run_ends_at_the_first_bad_image(tmp_path, monkeypatch):
    def at_once(self, name: str, reason: str) -> None:
        raise BadImage(name, reason)

    monkeypatch.setattr(Quarantine, "add", at_once)
    assert lost(damaged_images.in_a_run(20, tmp_path)) == 20


def test_with_pillows_convert_alone_kinds_of_images_are_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_module, "to_rgb", lambda image: np.asarray(image.convert("RGB")))
    assert lost(damaged_images.golden(len(damaged_images.CASES), tmp_path)) > 30


def test_with_half_read_files_let_in_damage_is_not_refused(tmp_path, monkeypatch):
    """What some do to go on: Pillow fills with grey what is not there."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:2000])
    assert isinstance(damaged_images.outcome(tmp_path / "x.jpg"), str)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert not isinstance(damaged_images.outcome(tmp_path / "x.jpg"), str)


def test_without_limits_decompression_bombs_take_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_module, "check_bounds", lambda file: None)
    names = ["TIFF, a million tiles", "JPEG, says 9,400 x 9,400 in 600 bytes", "PNG, a million chunks"]
    monkeypatch.setattr(huge_images, "BOMBS", {name: huge_images.BOMBS[name] for name in names})
    assert lost(huge_images.bombs(3, tmp_path)) == 3


def test_without_the_limit_a_huge_image_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rgb, "MAX_PIXELS", 10**9)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert lost(huge_images.huge(1, tmp_path)) == 1


def test_without_strips_an_image_at_the_limit_takes_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(rgb, "STRIP", 10**9)
    assert lost(huge_images.huge(3, tmp_path)) == 1


def test_without_the_part_that_is_shown_a_long_image_takes_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(crop, "LONG", 10**9)
    monkeypatch.setattr(huge_images, "BOMBS", {})
    monkeypatch.setattr(huge_images, "HARMLESS", {"PNG, 1 x 2,000": lambda: png(1, 2000, pixels=zeros(2000 * 4))})
    assert lost(huge_images.bombs(1, tmp_path)) == 1


def test_without_counted_reads_a_damaged_file_takes_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_READS", 10**9)
    ends_of_lines = bmp(100, 100, bytes(8 * 2**20), bits=8, packed=1)
    monkeypatch.setattr(huge_images, "BOMBS", {"BMP": lambda: ends_of_lines})
    assert lost(huge_images.bombs(1, tmp_path)) == 1
