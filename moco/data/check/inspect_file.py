"""Inspect one image file: whether it is good, of which kind, and what is odd about it."""

import hashlib
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from moco.data.check.near_duplicates import signature_of
from moco.data.decode import jpeg
from moco.data.decode.decode import EXTENSIONS, IMAGE_FORMATS, decode_file, open_file, reason_of
from moco.data.decode.limits import open_counted
from moco.data.decode.tiff import File
from moco.data.loader.threads import Abandoned
from moco.data.sources.images import DataError

SMALL, LONG = 32, 4  # reported as odd: a shorter side below 32 pixels, an aspect ratio above 4
_ENDINGS = dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG") | {".tif": "TIFF", ".tiff": "TIFF"}
_ENDINGS |= dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM")
_USUAL = ("RGB", "RGBA", "L", "LA", "P", "1")  # modes of Pillow


class Inspection(NamedTuple):
    """What was found in an image file."""

    bad: str = ""  # why it cannot be used; then only the digest may be known
    digest: bytes = b""  # SHA-256 of the file
    kind: str = ""  # format, and mode as Pillow names it: "JPEG RGB"
    size: tuple[int, int] = (0, 0)  # width, height of the upright image [pixels]
    odd: tuple[str, ...] = ()  # a short text for each oddity
    signature: tuple[int, UInt8[np.ndarray, "16 16"]] | None = None  # `signature_of`: hash and thumbnail


def inspect_file(path: str, *, compare: bool, deep: bool) -> Inspection:
    """Read the file at `path` whole. See `inspect_opened`."""
    return inspect_opened(lambda: open_file(path), path, compare=compare, deep=deep)


def inspect_opened(open_image: Callable[[], File], name: str, *, compare: bool, deep: bool) -> Inspection:
    """Read a file whole.

    Args:
        name: of the file, for its ending.
        compare: also compute the signature for finding near-duplicates.
        deep: also report damage that libjpeg-turbo tolerates.
    """
    digest = b""
    try:
        with open_image() as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            pixels = decode_file(file)
            file.seek(0)
            warning = jpeg.damage_warning(file.read()) if deep else ""
            file.seek(0)
            kind, odd = _header(file, name)
    except (DataError, Abandoned):  # a store that does not answer
        raise
    except Exception as error:  # as in decode.py
        return Inspection(bad=reason_of(error), digest=digest)
    height, width = pixels.shape[:2]
    odd += _shape(width, height)
    odd += ["of one colour"] if _is_plain(pixels) else []
    odd += [f"damage that decoders ignore ({warning})"] if warning else []
    return Inspection("", digest, kind, (width, height), tuple(odd), signature_of(pixels) if compare else None)


def _header(file: File, name: str) -> tuple[str, list[str]]:
    """Format and mode, and what is odd about them."""
    with open_counted(file, IMAGE_FORMATS) as image:
        form = "JPEG" if image.format == "MPO" else str(image.format)
        ending = os.path.splitext(name)[1].lower()
        expected = _ENDINGS.get(ending, ending[1:].upper())
        odd = [f"{form} with the ending {ending}"] if ending in EXTENSIONS and expected != form else []
        odd += [f"mode {image.mode}"] if image.mode not in _USUAL else []
        odd += ["transparent"] if image.has_transparency_data else []
        odd += ["of several frames"] if _is_animated(image) else []
        odd += ["turned by EXIF"] if _is_turned(image) else []
        return f"{form} {image.mode}", odd


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a later frame is damaged; only the first is used
        return False


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # as in decode.py
        return False


def _shape(width: int, height: int) -> list[str]:
    shorter, longer = sorted((width, height))
    small = [f"smaller than {SMALL} pixels"] if shorter < SMALL else []
    return small + ([f"longer than {LONG}:1"] if longer > LONG * shorter else [])


def _is_plain(pixels: UInt8[np.ndarray, "H W 3"]) -> bool:
    return bool((pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all())
