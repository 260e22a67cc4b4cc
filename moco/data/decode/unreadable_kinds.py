"""Recognize files that cannot be read here by their first bytes, and say what to do with them."""

from typing import NamedTuple

from moco.data.decode import tiff
from moco.data.decode.tiff import File


class FileKind(NamedTuple):
    """A kind of file that cannot be read."""

    offset: int  # of `magic` in the file
    magic: bytes
    name: str  # in messages
    advice: str  # what to do with it


_HEIC = "convert it to JPEG or PNG, with pillow-heif or heif-convert"
_RAW = "develop it to JPEG or TIFF, with rawpy, darktable or dcraw"
_VIDEO = "take pictures out of it, with ffmpeg"
_CONVERT = "convert it to PNG or JPEG"
_FLOATS = "map it to 8 bits, with OpenCV or ImageMagick"
_ARRAY = "save it as images of 8 bits, or give a Dataset in Python"

_KINDS = (
    *(FileKind(4, b"ftyp" + brand, "a HEIC image", _HEIC)
      for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")),
    *(FileKind(4, b"ftyp" + brand, "a HEIF image", _HEIC) for brand in (b"mif1", b"msf1", b"mif2")),
    *(FileKind(4, b"ftyp" + brand, "an AVIF image that is damaged or of a new kind", f"{_CONVERT}, with avifdec")
      for brand in (b"avif", b"avis")),
    FileKind(4, b"ftypcrx ", "a camera's raw file (Canon CR3)", _RAW),
    *(FileKind(4, b"ftyp" + brand, "a video", _VIDEO) for brand in (b"qt  ", b"iso", b"mp4", b"M4V", b"avc1", b"3gp")),
    FileKind(0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", f"{_CONVERT}, with Pillow or opj_decompress"),
    FileKind(0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", f"{_CONVERT}, with Pillow or opj_decompress"),
    FileKind(0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", f"{_CONVERT}, with djxl"),
    FileKind(0, b"\xff\x0a", "a JPEG XL image", f"{_CONVERT}, with djxl"),
    FileKind(0, b"II\xbc", "a JPEG XR image", f"{_CONVERT}, with imagecodecs"),
    *(FileKind(0, mark, "a camera's raw file", _RAW) for mark in (b"FUJIFILM", b"IIRO", b"IIRS", b"IIU\0", b"FOVb")),
    FileKind(0, b"8BPS", "a Photoshop file", f"{_CONVERT}, with Pillow or ImageMagick"),
    FileKind(0, b"gimp xcf", "a GIMP file", _CONVERT),
    FileKind(0, b"%PDF", "a PDF", f"{_CONVERT}, with pdftoppm"),
    FileKind(0, b"%!PS", "a PostScript file", f"{_CONVERT}, with Ghostscript"),
    FileKind(0, b"v/1\x01", "an OpenEXR image (floats)", _FLOATS),
    FileKind(0, b"#?RADIANCE", "a Radiance image (floats)", _FLOATS),
    FileKind(0, b"P7", "a PAM image", f"{_CONVERT}, with netpbm"),
    *(FileKind(0, mark, "a PFM image (floats)", _FLOATS) for mark in (b"PF", b"Pf")),
    *(FileKind(0, mark, f"{name} image", f"{_CONVERT}, with Pillow or ImageMagick")
      for mark, name in ((b"\0\0\1\0", "an ICO"), (b"DDS ", "a DDS"), (b"qoif", "a QOI"), (b"\x01\xda", "an SGI"),
                         (b"BPG\xfb", "a BPG"), (b"\x0a\x05\x01", "a PCX"))),
    FileKind(128, b"DICM", "a DICOM file", f"{_CONVERT}, with pydicom"),
    FileKind(0, b"SIMPLE  =", "a FITS file", f"{_ARRAY}; astropy reads it"),
    FileKind(0, b"\x93NUMPY", "a NumPy array", _ARRAY),
    FileKind(0, b"\x89HDF\r\n", "an HDF5 file", _ARRAY),
    FileKind(0, b"PK\3\4", "a ZIP archive", "unpack it"),
    FileKind(0, b"\x1f\x8b", "a gzip archive", "unpack it"),
    FileKind(8, b"AVI ", "a video", _VIDEO),
    FileKind(0, b"\x1aE\xdf\xa3", "a video", _VIDEO),
    FileKind(0, b"version https://git-lfs", "a pointer of Git LFS, not the image itself",
             "fetch it, with git lfs pull"),
    *(FileKind(0, mark, "a web page", "check the address it was downloaded from: it had no image")
      for mark in (b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML")),
    *(FileKind(0, mark, "an SVG or other XML file", f"{_CONVERT}, with Inkscape or cairosvg")
      for mark in (b"<?xml", b"<svg")),
)  # fmt: skip


def name_unreadable(file: File) -> str:
    """The kind of an open file that cannot be read, with advice; empty if it is not recognized."""
    file.seek(0)
    head = file.read(256)
    for kind in _KINDS:
        if head.startswith(kind.magic, kind.offset):
            return f"{kind.name}, which is not read here: {kind.advice}"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return (
            f"{tiff.describe_tiff(file)}, which Pillow cannot read: read all its bands (--bands, bands=True), or "
            "convert it to 8 bits"
        )
    if not head.strip(b"\0"):
        return "the file begins with zeros only, so it was not copied completely: copy it again"
    return ""
