"""TIFF files: read the tags of the first image, and correct what Pillow reads wrongly.

PlanarConfiguration 1 stores the samples of a pixel side by side, 2 stores each band as a separate plane. Pillow 13
reads uncompressed planes of 16 bits as if they had 8 bits, and mixes up the planes of some modes.
"""

import io
import struct
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

File = io.BytesIO | io.BufferedReader

_Tag = ExifTags.Base
_EXTRA_SAMPLES, _TILE_WIDTH, _TILE_LENGTH = 338, 322, 323
MAX_PAGES = 1000
_END = 2**62  # a place beyond the end of every file
_MAX_VALUES = 64  # values read of one entry; the tags needed here have a few
_STRUCT_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q", 6: "b", 7: "B", 8: "h", 9: "i", 10: "q", 11: "f", 12: "d",
                 13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_FORMATS = {1: "integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}


class DirectoryEntry(NamedTuple):
    """An entry of a directory (IFD): a tag and where its values are in the file."""

    tag: int
    kind: int  # type of the values, by its number in the format
    number: int  # of values
    size: int  # [bytes] of all values
    offset: int  # of the first value in the file


class Directory(NamedTuple):
    """The first directory of a TIFF file."""

    byte_order: str  # as in struct: "<" or ">"
    entries: list[DirectoryEntry]

    def integers(self, file: File, tag: int) -> tuple[int, ...]:
        """The first 64 values of `tag`; empty if the tag is missing or does not hold integers."""
        for entry in self.entries:
            if entry.tag == tag and entry.kind in _STRUCT_CODES and entry.kind not in (11, 12):  # floats
                form = struct.Struct(f"{self.byte_order}{min(entry.number, _MAX_VALUES)}{_STRUCT_CODES[entry.kind]}")
                file.seek(entry.offset)
                data = file.read(form.size)
                return form.unpack(data) if len(data) == form.size else ()
        return ()


def read_directory(file: File) -> Directory:
    """The first directory, up to 65,536 entries. A truncated file gives the entries that are whole."""
    file.seek(0)
    start = file.read(4)
    order, big = "<" if start.startswith(b"II") else ">", start[2:4] in (b"+\0", b"\0+")  # BigTIFF: 64-bit offsets
    form, inline = struct.Struct(order + ("HHQQ" if big else "HHII")), 8 if big else 4
    file.seek(8 if big else 4)
    file.seek(_read_number(order + ("Q" if big else "I"), file))
    found = []
    for _ in range(min(_read_number(order + ("Q" if big else "H"), file), 2**16)):
        place, line = file.tell(), file.read(form.size)
        if len(line) < form.size:
            break
        tag, kind, count, where = form.unpack(line)
        size = count * struct.calcsize(f"<{_STRUCT_CODES[kind]}") if kind in _STRUCT_CODES else 0
        found.append(
            DirectoryEntry(tag, kind, count, max(size, inline), where if size > inline else place + form.size - inline)
        )
    return Directory(order, found)


def check_pages(file: File) -> None:
    """Raise ValueError for a file of more than MAX_PAGES pages, or whose pages go round in a circle."""
    file.seek(0)
    start = file.read(4)
    order, big = "<" if start.startswith(b"II") else ">", start[2:4] in (b"+\0", b"\0+")
    number, count, entry = (order + "Q", order + "Q", 20) if big else (order + "I", order + "H", 12)
    file.seek(8 if big else 4)
    seen = set[int]()
    while (page := _read_number(number, file)) and page not in seen:
        seen.add(page)
        if len(seen) > MAX_PAGES:
            raise ValueError(f"TIFF of more than {MAX_PAGES:,} pages: store each image as a file")
        file.seek(min(page, _END))
        file.seek(min(file.tell() + struct.calcsize(count) + entry * _read_number(count, file), _END))
    if page:
        raise ValueError("TIFF whose pages go round in a circle: it is damaged")
    file.seek(0)


def _read_number(form: str, file: File) -> int:
    """The next number in `file`; 0 at its end."""
    data = file.read(struct.calcsize(form))
    return struct.unpack(form, data)[0] if len(data) == struct.calcsize(form) else 0


def describe_tiff(file: File) -> str:
    """What a TIFF file holds: "TIFF of 3 x 32-bit floats a pixel (compression 1, photometric 2)"."""
    directory = read_directory(file)

    def first(tag: int, default: int) -> int:
        return (directory.integers(file, tag) or (default,))[0]

    samples, bits, form = first(_Tag.SamplesPerPixel, 1), first(_Tag.BitsPerSample, 1), first(_Tag.SampleFormat, 1)
    planes = ", plane by plane" if samples > 1 and first(_Tag.PlanarConfiguration, 1) == 2 else ""
    return (
        f"TIFF of {samples} x {bits}-bit {_FORMATS.get(form, 'values')} a pixel{planes} "
        f"(compression {first(_Tag.Compression, 1)}, photometric {first(_Tag.PhotometricInterpretation, 0)})"
    )


def has_false_alpha(image: Image.Image) -> bool:
    """Whether Pillow takes the fourth band for alpha though no tag declares it. Most such files have infrared there."""
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    return is_tiff and image.mode == "RGBA" and _EXTRA_SAMPLES not in image.tag_v2


def is_unsigned(image: Image.Image) -> bool:
    """Whether a mode-I image holds unsigned 32-bit integers, which Pillow reads as signed."""
    if not (isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode == "I"):
        return False
    return _first_value(image.tag_v2, _Tag.BitsPerSample) == 32 and _first_value(image.tag_v2, _Tag.SampleFormat) == 1


def _first_value(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> int:
    """The first value of `tag`, which has one per band; 1 if the tag is missing."""
    return (tags.get(tag) or (1,))[0]


def bytes_per_chunk(image: Image.Image) -> int:
    """Uncompressed size of one strip or tile, which libtiff holds whole; 0 for images that libtiff does not decode."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or "libtiff" not in [tile[0] for tile in image.tile]:
        return 0
    tags, (width, height) = image.tag_v2, image.size
    bands = 1 if tags.get(_Tag.PlanarConfiguration, 1) == 2 else tags.get(_Tag.SamplesPerPixel, 1)
    if _TILE_WIDTH in tags:
        width, rows = tags[_TILE_WIDTH], tags.get(_TILE_LENGTH, height)
    else:
        rows = min(tags.get(_Tag.RowsPerStrip, height), height)
    return width * rows * bands * _first_value(tags, _Tag.BitsPerSample) // 8


def correct_planes(image: Image.Image) -> None:
    """Correct how Pillow will read an image that is stored plane by plane. Call it before `image.load()`.

    Raises:
        ValueError: Pillow reads this kind wrongly, and it cannot be corrected.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.tag_v2.get(_Tag.PlanarConfiguration, 1) != 2:
        return
    raw = bool(image.tile) and image.tile[0].codec_name == "raw"
    if len(image.getbands()) > 1 and not _planes_are_bands(image, raw=raw):
        raise ValueError(
            f"TIFF of mode {image.mode} that is stored plane by plane, which Pillow reads wrongly: store it with "
            "interleaved samples (PlanarConfiguration 1); tifffile reads it"
        )
    if raw:
        image.tile = _corrected_tiles(image)


def _planes_are_bands(image: TiffImagePlugin.TiffImageFile, *, raw: bool) -> bool:
    """Whether the planes are the bands of the Pillow image as they are: no premultiplied alpha, YCbCr or CIELAB."""
    tags = image.tag_v2
    plain = tags.get(_Tag.PhotometricInterpretation) in (2, 5) and 1 not in tags.get(_EXTRA_SAMPLES, ())
    bits = _first_value(tags, _Tag.BitsPerSample)
    if not plain or image.mode not in ("RGB", "RGBA", "CMYK") or bits not in (8, 16):
        return False
    return not raw or (tags.get(_Tag.FillOrder, 1) == 1 and (image.mode != "CMYK" or bits == 8))


def _corrected_tiles(image: TiffImagePlugin.TiffImageFile) -> list[ImageFile._Tile]:
    """Pillow's tiles of an uncompressed image, with the right raw mode and bytes per row, without surplus planes."""
    tags, bands = image.tag_v2, image.getbands()
    bits, width = _first_value(tags, _Tag.BitsPerSample), tags.get(_TILE_WIDTH, image.width)
    order = "L" if tags.prefix == b"II" else "B"
    suffix = f";16{order}" if bits == 16 else ""
    modes = [band + suffix for band in bands] if len(bands) > 1 else [_raw_mode(tags, bits)]
    tiles, plane = list[ImageFile._Tile](), -1
    for tile in image.tile:
        args = tuple(tile.args or ())
        plane += tile.extents is not None and tile.extents[:2] == (0, 0)  # where the next plane begins
        if plane < len(bands):
            stride = (width * bits + 7) // 8 if args[1] else 0
            tiles.append(tile._replace(args=(modes[plane], stride, *args[2:])))
    return tiles


def _raw_mode(tags: TiffImagePlugin.ImageFileDirectory_v2, bits: int) -> str:
    """Pillow's raw mode for an image of one band."""
    form, photometric = tags.get(_Tag.SampleFormat, (1,))[:1], tags.get(_Tag.PhotometricInterpretation, 0)
    known = TiffImagePlugin.OPEN_INFO.get((tags.prefix, photometric, form, tags.get(_Tag.FillOrder, 1), (bits,), ()))
    if known is None:
        raise ValueError("TIFF of one band that is stored as a plane, of a kind that Pillow does not know")
    return known[1]
