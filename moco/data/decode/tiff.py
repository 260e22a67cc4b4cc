"""TIFF files: what the first directory of a file says, and files whose bands Pillow would read wrongly.

Samples of a pixel lie side by side (PlanarConfiguration 1), or each band is stored as a plane of its own (2). Pillow 13
reads uncompressed planes of 16 bits as if they had 8, and the planes of some modes as other bands.
"""

import io
import struct
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

File = io.BytesIO | io.BufferedReader

_Tag = ExifTags.Base
_EXTRA_SAMPLES, _TILE_WIDTH, _TILE_LENGTH = 338, 322, 323
_VALUES = 64  # of an entry that are read: the tags that count here have a few
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q", 6: "b", 7: "B", 8: "h", 9: "i", 10: "q", 11: "f", 12: "d", 13: "I",
          16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_FORMATS = {1: "integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}


class Entry(NamedTuple):
    """An entry of a directory: `values` of a `kind` that are `size` bytes long, at `place` in the file."""

    tag: int
    kind: int  # as the format numbers them
    values: int  # how many
    size: int
    place: int


class Directory(NamedTuple):
    """The first directory of a TIFF file."""

    order: str  # of bytes, as struct writes it
    entries: list[Entry]

    def numbers(self, file: File, tag: int) -> tuple[int, ...]:
        """The values of `tag`, 64 at most; none where it is not there or holds no whole numbers."""
        for entry in self.entries:
            if entry.tag == tag and entry.kind in _CODES and entry.kind not in (11, 12):
                form = struct.Struct(f"{self.order}{min(entry.values, _VALUES)}{_CODES[entry.kind]}")
                file.seek(entry.place)
                data = file.read(form.size)
                return form.unpack(data) if len(data) == form.size else ()
        return ()


def read_directory(file: File) -> Directory:
    """The first directory, of 65,536 entries at most; as much of it as the file has."""
    file.seek(0)
    start = file.read(4)
    order, big = "<" if start.startswith(b"II") else ">", start[2:4] in (b"+\0", b"\0+")  # BigTIFF: of 64 bits
    form, inline = struct.Struct(order + ("HHQQ" if big else "HHII")), 8 if big else 4
    file.seek(8 if big else 4)
    file.seek(_read_number(order + ("Q" if big else "I"), file))
    found = []
    for _ in range(min(_read_number(order + ("Q" if big else "H"), file), 2**16)):
        place, line = file.tell(), file.read(form.size)
        if len(line) < form.size:
            break
        tag, kind, count, where = form.unpack(line)
        size = count * struct.calcsize(f"<{_CODES[kind]}") if kind in _CODES else 0
        found.append(Entry(tag, kind, count, max(size, inline), where if size > inline else place + form.size - inline))
    return Directory(order, found)


def _read_number(form: str, file: File) -> int:
    """The next number in `file`; 0 where it has ended."""
    data = file.read(struct.calcsize(form))
    return struct.unpack(form, data)[0] if len(data) == struct.calcsize(form) else 0


def describe_tiff(file: File) -> str:
    """What a TIFF file holds: "TIFF of 3 x 32-bit floats a pixel (compression 1, photometric 2)"."""
    directory = read_directory(file)

    def first(tag: int, default: int) -> int:
        return (directory.numbers(file, tag) or (default,))[0]

    samples, bits, form = first(_Tag.SamplesPerPixel, 1), first(_Tag.BitsPerSample, 1), first(_Tag.SampleFormat, 1)
    planes = ", plane by plane" if samples > 1 and first(_Tag.PlanarConfiguration, 1) == 2 else ""
    return (
        f"TIFF of {samples} x {bits}-bit {_FORMATS.get(form, 'values')} a pixel{planes} "
        f"(compression {first(_Tag.Compression, 1)}, photometric {first(_Tag.PhotometricInterpretation, 0)})"
    )


def has_false_alpha(image: Image.Image) -> bool:
    """Whether Pillow takes a fourth band for alpha that no tag calls so: infrared, in most such files."""
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    return is_tiff and image.mode == "RGBA" and _EXTRA_SAMPLES not in image.tag_v2


def is_unsigned(image: Image.Image) -> bool:
    """Whether an image of mode I, whose pixels Pillow has as signed 32-bit integers, has unsigned ones."""
    if not (isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode == "I"):
        return False
    return _first_value(image.tag_v2, _Tag.BitsPerSample) == 32 and _first_value(image.tag_v2, _Tag.SampleFormat) == 1


def _first_value(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> int:
    """The first value of a `tag` that has one for each band; 1 where it is not there."""
    return (tags.get(tag) or (1,))[0]


def bytes_of_a_piece(image: Image.Image) -> int:
    """Bytes of one strip or tile of a compressed TIFF image, which libtiff unpacks whole; 0 for all other images."""
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
    """Tell Pillow, before it loads a TIFF image that is stored plane by plane, how to read the planes.

    Raises:
        ValueError: of a kind that Pillow reads wrongly and that cannot be corrected.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.tag_v2.get(_Tag.PlanarConfiguration, 1) != 2:
        return
    raw = bool(image.tile) and image.tile[0].codec_name == "raw"
    if len(image.getbands()) > 1 and not _are_planes_known(image, raw=raw):
        raise ValueError(
            f"TIFF of mode {image.mode} that is stored plane by plane, which Pillow reads wrongly: store it with "
            "interleaved samples (PlanarConfiguration 1); tifffile reads it"
        )
    if raw:
        image.tile = _corrected_tiles(image)


def _are_planes_known(image: TiffImagePlugin.TiffImageFile, *, raw: bool) -> bool:
    """Whether each plane is a band as Pillow has it: not premultiplied by alpha, nor YCbCr or CIELAB."""
    tags = image.tag_v2
    plain = tags.get(_Tag.PhotometricInterpretation) in (2, 5) and 1 not in tags.get(_EXTRA_SAMPLES, ())
    bits = _first_value(tags, _Tag.BitsPerSample)
    if not plain or image.mode not in ("RGB", "RGBA", "CMYK") or bits not in (8, 16):
        return False
    return not raw or (tags.get(_Tag.FillOrder, 1) == 1 and (image.mode != "CMYK" or bits == 8))


def _corrected_tiles(image: TiffImagePlugin.TiffImageFile) -> list[ImageFile._Tile]:
    """The uncompressed pieces of the planes that are bands, with the right raw mode and bytes a row."""
    tags, bands = image.tag_v2, image.getbands()
    bits, width = _first_value(tags, _Tag.BitsPerSample), tags.get(_TILE_WIDTH, image.width)
    order = "L" if tags.prefix == b"II" else "B"
    modes = [band + f";16{order}" * (bits == 16) for band in bands] if len(bands) > 1 else [_raw_mode(tags, bits)]
    tiles, plane = list[ImageFile._Tile](), -1
    for tile in image.tile:
        args = tuple(tile.args or ())
        plane += tile.extents is not None and tile.extents[:2] == (0, 0)  # where the next plane begins
        if plane < len(bands):
            stride = (width * bits + 7) // 8 if args[1] else 0
            tiles.append(tile._replace(args=(modes[plane], stride, *args[2:])))
    return tiles


def _raw_mode(tags: TiffImagePlugin.ImageFileDirectory_v2, bits: int) -> str:
    """Pillow's raw mode of an image of one band."""
    form, photometric = tags.get(_Tag.SampleFormat, (1,))[:1], tags.get(_Tag.PhotometricInterpretation, 0)
    known = TiffImagePlugin.OPEN_INFO.get((tags.prefix, photometric, form, tags.get(_Tag.FillOrder, 1), (bits,), ()))
    if known is None:
        raise ValueError("TIFF of one band that is stored as a plane, of a kind that Pillow does not know")
    return known[1]
