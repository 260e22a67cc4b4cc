"""I4 and I5: decompression bombs, and huge intact images."""

import io
import warnings
from pathlib import Path

from PIL import Image

from moco.data.augment.crop import eval_crop
from moco.data.decode.decode import BadImage, decode
from moco.data.decode.limits import MAX_READS
from moco.data.decode.rgb import MAX_PIXELS
from moco.recipe import DataSpec
from tests.data.bombs import BOMBS, HARMLESS
from tests.faults.forked_child import in_child
from tests.faults.matrix import Fault, Tally

MEMORY = 200  # MB above the process after its imports
READINGS = 20  # CPU time at most, in that of 2,000,000 reads of a byte: 2 to 3 s
A_PIXEL = 9  # bytes of memory at most, for each pixel of an image that is read
SIDE = int(MAX_PIXELS**0.5)


def fate(file: Path) -> list[int] | str:
    """The shape of the image, or why it is refused."""
    warnings.simplefilter("ignore")
    try:
        pixels = decode(file)
        eval_crop(pixels, DataSpec())  # as evaluation does
        return list(pixels.shape)
    except BadImage as bad:
        return bad.reason


def reading(file: Path) -> float:
    """CPU seconds of reading a file byte by byte up to the limit of reads, on this machine."""
    file.write_bytes(bytes(MAX_READS))

    def read() -> None:
        with file.open("rb") as opened:
            for _ in range(MAX_READS):
                opened.read(1)

    seen = in_child(read)
    assert seen is not None
    return seen.seconds


def bombs(count: int, folder: Path) -> Tally:
    """Each is refused, and each long but harmless file is read, fast and in little memory."""
    tally, file = Tally(), folder / "x"
    most = READINGS * reading(file)
    for name, make in [*BOMBS.items(), *HARMLESS.items()][:count]:
        if in_child(lambda make=make: file.write_bytes(make())) is None:
            raise RuntimeError(f"the file '{name}' could not be made")
        seen = in_child(lambda: fate(file))
        refused = seen is not None and isinstance(seen.answer, str)
        good = seen is not None and seen.megabytes < MEMORY and seen.seconds < most and refused == (name in BOMBS)
        tally += good
        if not good:
            print(f"{name}: {seen}, of {most:.2f} s at most")
    return tally


def photo(side: int, mode: str, form: str) -> bytes:
    buffer, colour = io.BytesIO(), {"L": 99, "RGB": (9, 99, 199), "RGBA": (9, 99, 199, 99)}[mode]
    Image.MAX_IMAGE_PIXELS = None
    Image.new(mode, (side, side), colour).save(buffer, form, **({"compress_level": 1} if form == "PNG" else {}))
    return buffer.getvalue()


HUGE = {
    "JPEG of 20,000 x 20,000": lambda: photo(20_000, "L", "JPEG"),
    "JPEG at the limit": lambda: photo(SIDE, "RGB", "JPEG"),
    "PNG with alpha at the limit": lambda: photo(SIDE, "RGBA", "PNG"),
    "WebP at its limit": lambda: photo(6882, "RGB", "WEBP"),
}


def huge(count: int, folder: Path) -> Tally:
    """An image above the limit is refused in little memory; one at the limit is read in a few bytes a pixel."""
    tally = Tally()
    for name, make in [*HUGE.items()][:count]:
        if in_child(lambda make=make: (folder / "x").write_bytes(make()), seconds=300) is None:
            raise RuntimeError(f"the file '{name}' could not be made")
        seen = in_child(lambda: fate(folder / "x"), seconds=300)
        above = name == "JPEG of 20,000 x 20,000"
        most = MEMORY if above else A_PIXEL * MAX_PIXELS / 2**20
        good = seen is not None and seen.megabytes < most and isinstance(seen.answer, str) == above
        tally += good
        if not good:
            print(f"{name}: {seen}")
    return tally


FAULTS = [
    Fault(
        "I4", "decompression bombs, headers that lie, endless lists",
        "refused, below 200 MB above the process after its imports, within 20 times the CPU time of "
        "2,000,000 reads of a byte (2 to 3 s); long, harmless files are read",
        "limits are checked before Pillow (`tests/data/decode/test_limits.py`: without them files are read, or slow)",
        len(BOMBS) + len(HARMLESS), len(BOMBS) + len(HARMLESS), bombs,
    ),
    Fault(
        "I5", "huge intact images", "refused above 89,478,485 pixels; below, read in at most 9 bytes a pixel",
        "size is read from the header first, conversion in bands (`tests/faults/test_guards_of_images.py`: "
        "tries are lost without it)",
        len(HUGE), len(HUGE), huge,
    ),
]  # fmt: skip
