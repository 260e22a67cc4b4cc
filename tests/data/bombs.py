"""Files that ask for far more than they hold: decompression bombs, headers that lie, and endless lists."""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, bits: int = 8, colour: int = 2, pixels: bytes, extra: bytes = b"") -> bytes:
    """A PNG file by the book; `pixels` are compressed already."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def zeros(count: int) -> bytes:
    """`count` zero bytes, compressed a thousand times: one block of them, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(bytes(count % 2**20)) + packer.flush()
    checksum = struct.pack(">I", count % 65521 << 16 | 1)  # Adler-32 of zeros
    return b"\x78\xda" + block * (count // 2**20) + end + checksum


def small_png(extra: bytes) -> bytes:
    """An image of 4 x 4 with something more in it."""
    return png(4, 4, pixels=zeros(4 * 13), extra=extra)


def jpeg(width: int = 16, height: int = 16, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def liar(data: bytes, width: int, height: int) -> bytes:
    """A JPEG file with another size in its header."""
    place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


def many_scans(scans: int, side: int = 2000) -> bytes:
    """A progressive JPEG file whose last scan comes again and again."""
    data = jpeg(side, side, progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * scans + data[end:]


def tiff(width: int, height: int, *more: tuple[int, int, list[int]], tail: bytes = b"", packed: int = 1) -> bytes:
    """A grey TIFF file of 8 bits: `more` are entries (tag, type, values); by default one strip of no size."""
    rows = {256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 259: (3, [packed]), 262: (3, [1]), 277: (3, [1])}
    rows |= {tag: (kind, values) for tag, kind, values in more}
    if 324 not in rows:
        rows = {273: (4, [8]), 278: (4, [height]), 279: (4, [len(tail)])} | rows
    head, data, place = struct.pack("<H", len(rows)), b"", 8 + 2 + 12 * len(rows) + 4
    for tag, (kind, values) in sorted(rows.items()):
        packed_values = struct.pack(f"<{len(values)}{' BBHI'[kind]}", *values)
        inline = len(packed_values) <= 4
        value = packed_values.ljust(4, b"\0") if inline else struct.pack("<I", place + len(data))
        data += b"" if inline else packed_values
        head += struct.pack("<HHI", tag, kind, len(values)) + value
    return b"II*\0\x08\0\0\0" + head + b"\0\0\0\0" + data + tail


def gif(screen: tuple[int, int], frames: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HH", *screen) + b"\x80\0\0\0\0\0\xff\xff\xff" + frames + b";"


def gif_frame(width: int, height: int) -> bytes:
    return b"\x2c\0\0\0\0" + struct.pack("<HH", width, height) + b"\0\x02\x02\x44\x01\0"


def bmp(width: int, height: int, pixels: bytes = b"", *, bits: int = 24, packed: int = 0) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packed, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + info + pixels


def webp(width: int, height: int) -> bytes:
    """An animation of one small frame on a large canvas."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "WEBP", lossless=True)
    frame = bytes(16) + buffer.getvalue()[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiny_webp(width: int, height: int) -> bytes:
    """A lossless image of one colour: 34 bytes, whatever its size."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "WEBP", lossless=True)
    data = bytearray(buffer.getvalue())
    packed = int.from_bytes(data[21:25], "little") & ~0xFFFFFFF
    data[21:25] = (packed | (width - 1) | ((height - 1) << 14)).to_bytes(4, "little")
    return bytes(data)


def riff(size: int) -> bytes:
    return b"RIFF" + struct.pack("<I", size - 8) + b"WEBPVP8 " + bytes(size - 16)


def one_strip_of_16_bits(side: int) -> bytes:
    """An RGBA image of 16 bits in one compressed strip, which is unpacked whole: 8 bytes a pixel."""
    entries = [(258, 3, [16] * 4), (262, 3, [2]), (277, 3, [4]), (338, 3, [2])]
    return tiff(side, side, *entries, tail=zeros(8 * side**2), packed=8)


MEBI = 2**20
MILLION = 10**6
TILES = [(322, 3, [16]), (323, 3, [16]), (324, 4, [8] * MILLION), (325, 4, [256] * MILLION)]
STRIPS = [(278, 4, [1]), (273, 4, [8] * MILLION), (279, 4, [1] * MILLION)]

BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG, 30,000 x 30,000 in 110 kB": lambda: png(30_000, 30_000, bits=1, colour=0, pixels=zeros(30_000 * 3751)),
    "PNG, says 100,000 x 100,000": lambda: png(100_000, 100_000, pixels=b"x"),
    "PNG, zTXt of 1 GiB": lambda: small_png(chunk(b"zTXt", b"a\0\0" + zeros(2**30))),
    "PNG, iTXt of 1 GiB": lambda: small_png(chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(2**30))),
    "PNG, 1,000 zTXt of 1 MiB": lambda: small_png(chunk(b"zTXt", b"a\0\0" + zeros(2**20 - 10)) * 1000),
    "PNG, iCCP of 1 GiB": lambda: small_png(chunk(b"iCCP", b"a\0\0" + zeros(2**30))),
    "PNG, a million chunks": lambda: small_png(chunk(b"abCd", b"") * MILLION),
    "PNG, a million pieces of nothing": lambda: small_png(chunk(b"IDAT", b"") * MILLION),
    "JPEG, says 65,500 x 65,500": lambda: liar(jpeg(), 65_500, 65_500),
    "JPEG, says 9,400 x 9,400 in 600 bytes": lambda: liar(jpeg(), 9400, 9400),
    "progressive JPEG, says 9,400 x 9,400": lambda: liar(jpeg(progressive=True), 9400, 9400),
    "JPEG, 1,000 scans": lambda: many_scans(1000),
    "JPEG, 2 million comments": lambda: jpeg()[:2] + b"\xff\xfe\0\2" * (2 * MILLION) + jpeg()[2:],
    "TIFF, a million tiles": lambda: tiff(4000, 4000, *TILES),
    "TIFF, a million strips": lambda: tiff(1, MILLION, *STRIPS),
    "TIFF, an entry of 70 MB": lambda: tiff(4, 4, (700, 1, [0] * (70 * MILLION))),
    "TIFF, says 100,000 x 100,000": lambda: tiff(100_000, 100_000),
    "TIFF, 30,000 x 30,000, deflated": lambda: tiff(30_000, 30_000, tail=zeros(9 * 10**8), packed=8),
    "GIF, a screen of 65,535 x 65,535": lambda: gif((65_535, 65_535), gif_frame(1, 1)),
    "GIF, a frame of 65,535 x 65,535": lambda: gif((1, 1), gif_frame(65_535, 65_535)),
    "BMP, says 100,000 x 100,000": lambda: bmp(100_000, 100_000),
    "BMP, 9,400 x 9,400 without pixels": lambda: bmp(9400, 9400),
    "WebP, a canvas of 16,383 x 16,383": lambda: webp(16_383, 16_383),
    "WebP, 9,400 x 9,400 in 34 bytes": lambda: tiny_webp(9400, 9400),
    "WebP, 128 MiB of nothing": lambda: riff(128 * MEBI),
    "AVIF, 128 MiB of nothing": lambda: b"\0\0\0\x20ftypavif" + bytes(128 * MEBI),
    "TIFF, 9,400 x 9,400 of 16 bits in one strip": lambda: one_strip_of_16_bits(9400),
    "JPEG, 40 MiB of nothing before its first scan": lambda: jpeg()[:20] + bytes(40 * MEBI) + jpeg()[20:],
    "JPEG, 40 MiB of nothing behind half a header": lambda: jpeg()[:300] + bytes(40 * MEBI),
    "GIF, 40 MiB of nothing before its frame": lambda: gif((1, 1), bytes(40 * MEBI) + gif_frame(1, 1)),
    "BMP, 40 MiB of ends of lines": lambda: bmp(100, 100, bytes(40 * MEBI), bits=8, packed=1),
}
"""Each must be refused, at once and in little memory."""

HARMLESS: dict[str, Callable[[], bytes]] = {
    "PNG, 1 x 60,000, which evaluation resizes": lambda: png(1, 60_000, pixels=zeros(60_000 * 4)),
    "PNG, 60,000 x 1, which evaluation resizes": lambda: png(60_000, 1, pixels=zeros(180_001)),
    "GIF, 100,000 frames": lambda: gif((1, 1), gif_frame(1, 1) * 100_000),
    "GIF, a comment of 10 MB": lambda: gif((1, 1), b"\x21\xfe" + b"\xff".ljust(256) * 40_000 + b"\0" + gif_frame(1, 1)),
    "JPEG, a profile of 30 MB": lambda: (
        jpeg()[:2] + (b"\xff\xe2\xff\xff" + b"ICC_PROFILE".ljust(65_533, b"\0")) * 460 + jpeg()[2:]
    ),
}
"""Each is an image after all, and must be read as quickly."""
