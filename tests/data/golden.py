"""Files of every kind with the pixels that they must become: the table of docs/data.md, by arithmetic.

No expected value comes from a decoder. Where a file rounds (JPEG, Pillow's colour tables), `within` says how far.
"""

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image

from tests.data.bombs import chunk, png

PILLOW = int(PIL.__version__.split(".")[0])
GREY16 = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)


@dataclass(frozen=True)
class Case:
    """A file, and what it becomes."""

    name: str
    data: bytes
    pixels: np.ndarray  # [H, W, 3]
    within: int = 0


def file_of(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def row(pixels: list, dtype: type, mode: str | None = None) -> Image.Image:
    """An image of one row."""
    array = np.array([pixels], dtype=dtype)
    return Image.fromarray(array) if mode is None else Image.frombytes(mode, (array.shape[1], 1), array.tobytes())


def grey(values: Iterable[float]) -> np.ndarray:
    """One row of greys."""
    return np.array([[[int(value)] * 3 for value in values]])


def on_paper(colour: int, alpha: int) -> int:
    """What is seen of `colour` on white paper."""
    return round((colour * alpha + 255 * (255 - alpha)) / 255)


def stretched(values: list[float]) -> np.ndarray:
    low, high = min(values), max(values)
    return grey([round((value - low) / (high - low) * 255) for value in values])


def printed(ink: list[int]) -> list[int]:
    """What is seen of inks, black the last."""
    return [round((255 - colour) * (255 - ink[3]) / 255) for colour in ink[:3]]


def srgb_of_lab(lightness: float) -> float:
    """A neutral colour of CIE L*, as sRGB in 0..255."""
    y = ((lightness + 16) / 116) ** 3 if lightness > 8 else lightness / 903.3
    return 255 * (12.92 * y if y <= 0.0031308 else 1.055 * y ** (1 / 2.4) - 0.055)


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores `upright` under an EXIF orientation: the inverse of the turn that viewers apply."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def plain() -> list[Case]:
    """1 bit, grey, colour, palettes."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    bits, profiled = row([0, 255], np.uint8).convert("1"), Image.new("RGB", (1, 1), (9, 8, 7))
    palette = row([0, 1, 2], np.uint8, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    looked_up = np.arange(10, 100, 10).reshape(1, 3, 3)
    forms, colours = ("PNG", "BMP", "TIFF"), ("PNG", "BMP", "TIFF", "WEBP")
    lossless = {"WEBP": {"lossless": True}}
    return [
        *(Case(f"1 bit, {f}", file_of(bits, f), grey([0, 255])) for f in (*forms, "GIF")),
        *(Case(f"grey, {f}", file_of(row([0, 7, 255], np.uint8), f), grey([0, 7, 255])) for f in forms),
        *(Case(f"RGB, {f}", file_of(Image.fromarray(noise), f, **lossless.get(f, {})), noise) for f in colours),
        *(Case(f"palette, {f}", file_of(palette, f), looked_up) for f in (*forms, "GIF")),
        Case("1 x 1", file_of(Image.new("L", (1, 1), 9), "PNG"), grey([9])),
        Case("4 x 9000", file_of(Image.new("L", (4, 9000), 9), "PNG"), np.full((9000, 4, 3), 9)),
        Case("9000 x 4", file_of(Image.new("L", (9000, 4), 9), "PNG"), np.full((4, 9000, 3), 9)),
        Case("no profile", file_of(profiled, "PNG", icc_profile=b"none"), np.array([[[9, 8, 7]]])),
    ]


def deep() -> list[Case]:
    """16 and 32 bits, floats."""
    high = grey(GREY16[0] // 256)
    big_endian = Image.frombytes("I;16B", (5, 1), GREY16.astype(">u2").tobytes())
    colour = np.array([1000, 32768, 65535, 256, 511, 513], dtype=">u2")
    alpha = np.array([1000, 32768, 1000, 65535, 256, 511, 513, 0], dtype=">u2")
    integers = [[-1000, 0, 3000], [0, 70_000, 2**31 - 1]]
    floats = [[-2.0, 0.0, 6.0], [0.0, 1.0, 1.5], [100.0, 1e6, 1e30]]
    holes = [np.nan, 0.0, 5.0, 10.0, np.inf, -np.inf]
    return [
        *(Case(f"16-bit grey, {f}", file_of(Image.fromarray(GREY16), f), high) for f in ("PNG", "TIFF")),
        Case("16-bit grey, big-endian TIFF", file_of(big_endian, "TIFF"), high),
        Case("32-bit integers of 16 bits", file_of(Image.fromarray(GREY16.astype(np.int32)), "TIFF"), high),
        *(Case(f"32-bit integers {v}", file_of(row(v, np.int32), "TIFF"), stretched(v)) for v in integers),
        Case("floats in [0, 1]", file_of(row([0.0, 0.25, 0.6, 0.8], np.float32), "TIFF"), grey([0, 64, 153, 204])),
        *(Case(f"floats {v}", file_of(row(v, np.float32), "TIFF"), stretched(v)) for v in floats),
        Case("floats with holes", file_of(row(holes, np.float32), "TIFF"), grey([0, 0, 128, 255, 0, 0])),
        Case("floats, all 7", file_of(row([7.0, 7.0], np.float32), "TIFF"), grey([0, 0])),
        Case("16-bit RGB", deep_png(2, colour, 2), (colour // 256).reshape(1, 2, 3)),
        Case("16-bit RGBA", deep_png(2, alpha, 6), np.array([[[3, 128, 3], [255, 255, 255]]])),
    ]


def deep_png(width: int, values: np.ndarray, colour: int, extra: bytes = b"") -> bytes:
    """A PNG file of one row with 16 bits a channel, which Pillow does not write."""
    return png(width, 1, bits=16, colour=colour, pixels=zlib.compress(b"\0" + values.tobytes()), extra=extra)


def transparent() -> list[Case]:
    """Alpha channels, and transparent entries and colours."""
    rgba = [[10, 20, 30, 0], [10, 20, 30, 100], [10, 20, 30, 255]]
    laid = np.array([[[on_paper(c, pixel[3]) for c in pixel[:3]] for pixel in rgba]])
    la = [[0, 0], [100, 128], [7, 255]]
    palette = row([0, 1, 2], np.uint8, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    colours = np.arange(10, 100, 10).reshape(1, 3, 3)
    hole, veil = colours.copy(), colours.copy()
    hole[0, 1], veil[0, 0], veil[0, 1] = 255, 255, [on_paper(c, 128) for c in (40, 50, 60)]
    key16 = deep_png(3, np.array([2000, 2001, 65535], dtype=">u2"), 0, chunk(b"tRNS", struct.pack(">H", 2000)))
    forms = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}}
    rgb = row([[5, 6, 7], [5, 6, 8]], np.uint8)
    return [
        *(Case(f"RGBA, {form}", file_of(row(rgba, np.uint8), form, **more), laid) for form, more in forms.items()),
        *(
            Case(f"LA, {form}", file_of(row(la, np.uint8, "LA"), form), grey(on_paper(*pixel) for pixel in la))
            for form in ("PNG", "TIFF")
        ),
        *(
            Case(f"palette with a hole, {form}", file_of(palette, form, transparency=1), hole)
            for form in ("PNG", "GIF")
        ),
        Case("palette with alphas", file_of(palette, "PNG", transparency=bytes([0, 128, 255])), veil),
        Case("RGB with a hole", file_of(rgb, "PNG", transparency=(5, 6, 7)), np.array([[[255] * 3, [5, 6, 8]]])),
        Case("grey with a hole", file_of(row([5, 6], np.uint8), "PNG", transparency=5), grey([255, 6])),
        Case("16-bit grey with a hole", key16, grey([255, 7, 255])),
    ]


def no_alpha() -> list[Case]:
    """Alpha that is 0 everywhere counts as none."""
    rgb, la = [[10, 20, 30, 0], [40, 50, 60, 0]], [[7, 0], [200, 0]]
    shown, grey_shown = np.array([[pixel[:3] for pixel in rgb]]), grey([7, 200])
    palette = row([0, 0], np.uint8, "P")
    palette.putpalette([10, 20, 30])
    forms = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}}
    one = deep_png(2, np.array([2000, 2000], dtype=">u2"), 0, chunk(b"tRNS", struct.pack(">H", 2000)))
    return [
        *(Case(f"RGBA, alpha 0, {f}", file_of(row(rgb, np.uint8), f, **more), shown) for f, more in forms.items()),
        *(Case(f"LA, alpha 0, {f}", file_of(row(la, np.uint8, "LA"), f), grey_shown) for f in ("PNG", "TIFF")),
        Case("BMP of 32 bits, alpha 0", bmp_with_alpha([[30, 20, 10, 0], [60, 50, 40, 0]]), shown),
        Case("palette, all of the hole", file_of(palette, "PNG", transparency=0), np.array([[[10, 20, 30]] * 2])),
        Case("16-bit grey, all of the hole", one, grey([7, 7])),
    ]


def bmp_with_alpha(pixels: list[list[int]]) -> bytes:
    """A BMP file of one row of B, G, R, A: its header (version 4) has a mask of alpha."""
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, len(pixels), 1, 1, 32, 3, 4 * len(pixels), 0, 0, 0, 0) + masks
    info = info.ljust(108, b"\0")
    data = np.array(pixels, dtype=np.uint8).tobytes()
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(data), 0, 0, 14 + 108) + info + data


def newer() -> list[Case]:
    """AVIF, which rounds, and PPM."""
    blocks = np.repeat(np.repeat(np.array([[[200, 30, 30], [30, 200, 30], [30, 30, 200]]], np.uint8), 16, 0), 16, 1)
    options = {"quality": 100, "subsampling": "4:4:4"}
    turned_file = file_of(Image.fromarray(np.rot90(blocks, 1).copy()), "AVIF", exif=turned(6), **options)
    veiled = Image.new("RGBA", (16, 16), (10, 20, 30, 100))
    seen = np.broadcast_to([on_paper(c, 100) for c in (10, 20, 30)], (16, 16, 3))
    ppm = {mode: Image.fromarray(blocks).convert(mode) for mode in ("RGB", "L", "1")}
    return [
        Case("AVIF", file_of(Image.fromarray(blocks), "AVIF", **options), blocks, within=6),
        Case("AVIF, orientation 6", turned_file, blocks, within=6),
        Case("AVIF with alpha", file_of(veiled, "AVIF", **options), seen, within=4),
        *(Case(f"PPM, {mode}", file_of(im, "PPM"), np.asarray(im.convert("RGB"))) for mode, im in ppm.items()),
    ]


def other_colours() -> list[Case]:
    """CMYK, YCbCr, LAB."""
    inks = [[0, 0, 0, 0], [10, 100, 200, 50], [0, 0, 0, 255], [255, 255, 255, 0]]
    seen = np.array([[printed(ink) for ink in inks]])
    adobe = file_of(Image.new("CMYK", (16, 16), (10, 100, 200, 50)), "JPEG", quality=100)
    mark = adobe.index(b"\xff\xee")
    bare = adobe[:mark] + adobe[mark + 2 + int.from_bytes(adobe[mark + 2 : mark + 4]) :]
    photo = np.broadcast_to(printed([10, 100, 200, 50]), (16, 16, 3))
    y, cb, cr = 100, 150, 90
    exact = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    lightness = [0, 26, 128, 255]
    lab = row([[value, 0, 0] for value in lightness], np.uint8, "LAB")
    neutral = np.array([[[srgb_of_lab(value / 2.55)] * 3 for value in lightness]])
    packed = None if PILLOW >= 13 else "packbits"  # Pillow 12 reads no uncompressed YCbCr: such a file is a bad image
    ycbcr = file_of(row([[y, cb, cr]], np.uint8, "YCbCr"), "TIFF", compression=packed)
    return [
        Case("CMYK, TIFF", file_of(row(inks, np.uint8, "CMYK"), "TIFF"), seen, within=1),
        Case("CMYK, JPEG of Adobe", adobe, photo, within=2),
        Case("CMYK, JPEG without the mark", bare, photo, within=2),
        Case("YCbCr, TIFF", ycbcr, np.array([[exact]]), within=1),
        Case("LAB, TIFF", file_of(lab, "TIFF"), neutral, within=2),
    ]


def upright() -> list[Case]:
    """EXIF orientations 1 to 8."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    blocks = np.repeat(np.repeat(np.array([[0, 250, 0], [120, 0, 60]], np.uint8), 16, 0), 16, 1)
    photo, cases = np.repeat(blocks[..., None], 3, axis=2), []
    for way in range(1, 9):
        stored = Image.fromarray(np.ascontiguousarray(as_stored(noise, way)))
        for form, more in {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}.items():
            cases.append(Case(f"orientation {way}, {form}", file_of(stored, form, exif=turned(way), **more), noise))
        grey_photo = Image.fromarray(np.ascontiguousarray(as_stored(blocks, way)))
        jpeg = file_of(grey_photo, "JPEG", exif=turned(way), quality=100)
        cases.append(Case(f"orientation {way}, JPEG", jpeg, photo, within=3))
    on_its_side = file_of(Image.fromarray(np.rot90(GREY16, 1).copy()), "PNG", exif=turned(6))
    torn = file_of(Image.fromarray(noise), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense")
    return [*cases, Case("orientation 6, 16 bits", on_its_side, grey(GREY16[0] // 256)), Case("torn EXIF", torn, noise)]


def first_frames() -> list[Case]:
    """Files of several pictures."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    first = np.broadcast_to([250, 0, 0], (8, 8, 3))
    return [
        Case(f"two frames, {form}", file_of(frames[0], form, save_all=True, append_images=frames[1:]), first, within=3)
        for form in ("GIF", "WEBP", "PNG", "TIFF", "MPO")
    ]


CASES = [*plain(), *deep(), *transparent(), *no_alpha(), *newer(), *other_colours(), *upright(), *first_frames()]
