"""I1: damaged images that are read with all their bands."""

import io
import time
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from moco.data.decode.decode import BadImage
from moco.data.sources.folder import find_images
from moco.data.sources.images import read_bands
from tests.data.damaged_files import damaged
from tests.faults.forked_child import in_child
from tests.faults.matrix import Fault, Tally

BATCH = 100  # files a child decodes
SLOW, HUGE = 2.0, 900.0  # CPU seconds of a file, and MB of a child, above which a try is lost


@cache
def intact() -> list[tuple[str, bytes]]:
    """Files of every kind, with their ending."""
    array = np.random.default_rng(0).integers(0, 4000, (48, 40, 5), dtype=np.uint16)
    options: list[dict] = [
        {}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)},
        {"compression": "deflate", "predictor": 2}, {"bigtiff": True, "rowsperstrip": 7},
    ]  # fmt: skip
    files = []
    for one in options:
        file = io.BytesIO()
        tifffile.imwrite(file, array, photometric="minisblack", planarconfig="contig", **one)
        files.append((".tif", file.getvalue()))
    file = io.BytesIO()
    tifffile.imwrite(file, array.transpose(2, 0, 1), photometric="minisblack", ome=True, metadata={"axes": "CYX"})
    files.append((".tif", file.getvalue()))
    file = io.BytesIO()
    np.save(file, array.astype(np.float32))
    files.append((".npy", file.getvalue()))
    files.append((".png", imagecodecs.png_encode(np.ascontiguousarray(array[:, :, :3]))))
    return files


def sound(folder: Path, name: str) -> bool:
    """Whether the file soon gives an image, or a BadImage with a reason."""
    (folder / "list.txt").write_text(name)
    start = time.process_time()
    try:
        raw = read_bands(find_images(folder / "list.txt"), 0)
        good = raw.ndim == 3 and raw.dtype.kind in "uif" and raw.shape[2] <= 64
    except BadImage as bad:
        good = bool(bad.reason)
    except Exception:
        good = False
    return good and time.process_time() - start < SLOW


def fuzzed(count: int, folder: Path) -> Tally:
    """Read damaged files of every kind in child processes."""
    tally = Tally()

    def batch(trials: range) -> list[bool]:
        good = []
        for trial in trials:
            ending, data = intact()[trial % len(intact())]
            name = f"{trial:05d}{ending}"
            (folder / name).write_bytes(damaged(data, np.random.default_rng(trial)) or b"x")
            good.append(sound(folder, name))
            (folder / name).unlink()
        return good

    for start in range(0, count, BATCH):
        trials = range(start, min(start + BATCH, count))
        seen = in_child(lambda trials=trials: batch(trials), seconds=300)
        fine = seen is not None and seen.megabytes < HUGE
        for good in seen.answer if fine else [False] * len(trials):
            tally += good
    return tally


FAULTS = [
    Fault(
        "I1", "damaged images, all bands", "an image, or an error with a reason, within 2 s of CPU",
        "sizes and pages are checked before tifffile reads (`tests/data/decode/test_bands.py`: hostile headers, "
        "pages in a circle, with which tifffile never ends)",
        4000, 80, fuzzed,
    ),
]  # fmt: skip
