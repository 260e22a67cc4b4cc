"""Files that are not read: what they are is said, and what would read them."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from moco.data.decode.decode import BadImage, decode


def why(folder, data: bytes) -> str:
    (folder / "x.jpg").write_bytes(data)
    with pytest.raises(BadImage) as caught:
        decode(folder / "x.jpg")
    return caught.value.reason


def made(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 99, 199)).save(buffer, form)
    return buffer.getvalue()


WRITTEN = {
    "JPEG2000": "JPEG 2000",
    "SGI": "SGI",
    "ICO": "ICO",
    "EPS": "PostScript",
    "PDF": "PDF",
    "PCX": "PCX",
    "DDS": "DDS",
}


@pytest.mark.parametrize("form", WRITTEN)
def test_formats_that_pillow_writes_and_we_do_not_read_are_named(tmp_path, form: str):
    reason = why(tmp_path, made(form))
    assert WRITTEN[form] in reason
    assert "convert it to PNG or JPEG" in reason


HEADS = {
    b"\0\0\0\x18ftypheic": ("HEIC", "pillow-heif"),
    b"\0\0\0\x18ftypmif1": ("HEIF", "pillow-heif"),
    b"\0\0\0\x18ftypqt  ": ("video", "ffmpeg"),
    b"\0\0\0\x18ftypcrx ": ("raw file", "rawpy"),
    b"\xff\x0a": ("JPEG XL", "djxl"),
    b"8BPS\0\1": ("Photoshop", "convert"),
    b"v/1\x01": ("OpenEXR", "8 bits"),
    b"version https://git-lfs.github.com/spec/v1\n": ("Git LFS", "git lfs pull"),
    b"<!DOCTYPE html><html>": ("web page", "loaded from"),
    b"PK\3\4": ("ZIP", "unpack"),
    b"\x93NUMPY\1\0": ("NumPy", "Dataset"),
    bytes(1000): ("zeros", "copy it again"),
    b"\0" * 128 + b"DICM": ("DICOM", "pydicom"),
}


@pytest.mark.parametrize("head", HEADS)
def test_other_files_are_named_by_their_first_bytes(tmp_path, head: bytes):
    reason = why(tmp_path, head + struct.pack("<8I", *range(8)))
    assert all(word in reason for word in HEADS[head])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint32])
def test_a_tiff_that_pillow_cannot_read_says_what_its_pixels_are(tmp_path, dtype: type):
    tifffile.imwrite(tmp_path / "y.tif", np.zeros((4, 5, 3), dtype=dtype), photometric="rgb")
    reason = why(tmp_path, (tmp_path / "y.tif").read_bytes())
    bits, kind = np.dtype(dtype).itemsize * 8, "floats" if np.dtype(dtype).kind == "f" else "integers"
    assert f"TIFF of 3 x {bits}-bit {kind} a pixel" in reason
    assert "--bands" in reason
