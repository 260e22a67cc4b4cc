"""What is done to pixels on the host: by compiled kernels, or by Pillow and torch where there are none. Same bits.

Views are bytes, N x S x S x 3: what a tensor N x 3 x S x S is in channels_last.
"""

import functools
import math
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from moco.data.augment import draw
from moco.data.augment.colour import HUE, Look, boxes, colour, hsv_tables
from moco.data.loader.buffers import Reused
from moco.recipe import DataSpec, View

Bytes = UInt8[np.ndarray, "N S S 3"]
GREY, BLUR, SOLARIZE = 4, 5, 6  # steps of a view beside the four of its jitter, as in kernels.py
SLOW = "MOCO_SLOW_VIEWS"  # set in the environment: the kernels are not used


def kernels(*, wait: bool = False) -> ModuleType | None:
    """The compiled kernels; None until they are there, which `load` begins, unless we `wait`; and where numba fails."""
    begun = _loading.cache_info().currsize > 0
    return _loading().result() if wait or (begun and _loading().done()) else None


def load() -> None:
    """Begin to load the kernels, or to compile them, in a thread of their own, unless that was done."""
    _loading()


@functools.cache
def _loading() -> Future[ModuleType | None]:
    """The kernels, on their way. Loading them takes half a second, beside the run.

    Compiling takes some twenty seconds, once a machine, in a process of its own: it does not slow the run down, which
    need not wait for it, even to end. Until then views are made the slow way. Where numba has no place for its cache
    that can be written to (a container), they are compiled for this process alone, in a temporary folder.
    """
    future: Future[ModuleType | None] = Future()

    def import_them(cache: TemporaryDirectory[str] | None) -> None:
        kernels = None
        try:
            with _cached_in(cache.name) if cache is not None else nullcontext():
                from moco.data.augment import kernels
        except BaseException as error:  # numba is not there, or does not know this machine or this Python
            warnings.warn(
                f"views are made by Pillow and torch, which takes some five times as long, as numba does not work here "
                f"({type(error).__name__}: {error}). If it has no place for its cache, set NUMBA_CACHE_DIR to a folder "
                "that can be written to",
                stacklevel=2,
            )
        finally:
            if cache is not None:
                cache.cleanup()  # what it held is in memory now
            future.set_result(kernels)

    def prepare() -> None:
        cache = (
            None
            if _compiled_before() or _compile()
            else TemporaryDirectory(prefix="moco-kernels-", ignore_cleanup_errors=True)
        )
        if cache is not None:
            _compile(cache.name)
        importing = threading.Thread(target=import_them, args=[cache], name="moco-kernels", daemon=False)
        importing.start()  # the end of a run waits for it

    if os.environ.get(SLOW):
        future.set_result(None)
    else:
        threading.Thread(target=prepare, name="moco-kernels-compile", daemon=True).start()
    return future


def _compiled_before() -> bool:
    """Whether numba's cache lies beside the kernels, where numba uses it only if it may write there."""
    beside = Path(__file__).parent / "__pycache__"
    return "NUMBA_CACHE_DIR" not in os.environ and os.access(beside, os.W_OK) and any(beside.glob("kernels.*.nbi"))


@contextmanager
def _cached_in(folder: str) -> Iterator[None]:
    """Let numba look into `folder` for the time being: functions of the user's are cached where they were."""
    import numba

    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]


def _compile(cache: str | None = None) -> bool:
    """Compile the kernels in a process of its own, and keep them in numba's cache, or in the folder `cache`."""
    added = {"PYTHONPATH": os.pathsep.join(sys.path)} | ({} if cache is None else {"NUMBA_CACHE_DIR": cache})
    done = subprocess.run(
        [sys.executable, "-c", "import moco.data.augment.kernels"], env=os.environ | added, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    return done.returncode == 0


@dataclass(frozen=True)
class Drawn:
    """One view of N images, as it was drawn."""

    view: View
    numbers: draw.RandomNumbers

    @cached_property
    def look(self) -> Look:
        return draw.look(self.view, self.numbers)

    @cached_property
    def program(self) -> Float64[np.ndarray, "N length"]:
        """What the kernels need to know, in their order."""
        view, numbers, box = self.view, self.numbers, boxes(self.look.sigma)
        ratios = [math.log(ratio) for ratio in view.crop_ratio]
        columns = [
            numbers.tries(draw.Choice.AREA, *view.crop_area), np.exp(numbers.tries(draw.Choice.RATIO, *ratios)),
            numbers.of(draw.Choice.TOP), numbers.of(draw.Choice.LEFT), draw.flips(view, numbers),
            np.full(len(numbers), view.crop_area[1] > 1), *(np.full(len(numbers), ratio) for ratio in view.crop_ratio),
            *_steps(self.look), box.reach, box.full, box.edge,
        ]  # fmt: skip
        return np.column_stack(columns).astype(np.float64)


def _steps(look: Look) -> tuple[Int64[np.ndarray, "N 7"], Float64[np.ndarray, "N 7"]]:
    """What is done to the colours of each view, in order, with -1 for nothing; and by which factors."""
    grey, blur, solarize = (
        np.where(on, step, -1)[:, None]
        for on, step in ((look.grey, GREY), (look.sigma > 0, BLUR), (look.solarize, SOLARIZE))
    )
    jitter_and_grey = [grey, look.order] if look.grey_first else [look.order, grey]
    steps = np.concatenate([*jitter_and_grey, blur, solarize], axis=1)
    factors = np.pad(look.factors, ((0, 0), (0, 3)))  # by step
    factors[:, HUE] = np.trunc(factors[:, HUE] * 255) % 256  # torchvision adds it to a byte, which wraps
    return steps, np.take_along_axis(factors, steps, axis=1)


def views(
    image: UInt8[np.ndarray, "H W 3"], drawn: Sequence[Drawn], row: int, crops: Sequence[Bytes], *, coloured: bool
) -> None:
    """Each of the views drawn of an image in `row`, into that row of `crops`: the crop alone, or with its colours."""
    fast = kernels()
    if fast is None:
        for view, out in zip(drawn, crops, strict=True):
            _slow_view(image, view, row, out[row], coloured=coloured)
        return
    lines, tables = _lines(image), _tables()
    for view, out in zip(drawn, crops, strict=True):
        fast.view(lines, view.program[row], coloured, *tables, out[row].reshape(out.shape[1], -1))


def views_of_kept(
    images: UInt8[np.ndarray, "n H W 3"],
    ids: Int64[np.ndarray, " m"],
    drawn: Sequence[Drawn],
    rows: slice,
    crops: Sequence[Bytes],
    *,
    coloured: bool,
) -> None:
    """`views` of the images `ids` of those in memory, in one call for each view."""
    fast = kernels()
    if fast is None:
        for row, index in zip(range(rows.start, rows.stop), ids, strict=True):
            views(images[index], drawn, row, crops, coloured=coloured)
        return
    for view, out in zip(drawn, crops, strict=True):
        fast.views(_flat(images), ids, view.program[rows], coloured, *_tables(), _flat(out[rows]))


def _slow_view(
    image: UInt8[np.ndarray, "H W 3"], drawn: Drawn, row: int, out: UInt8[np.ndarray, "S S 3"], *, coloured: bool
) -> None:
    one, (height, width, _) = slice(row, row + 1), image.shape
    numbers = drawn.numbers.rows(one)
    box = draw.crop_boxes(drawn.view, numbers, heights=np.array([height]), widths=np.array([width]))[0]
    crop = draw.crop(image, box, flip=bool(draw.flips(drawn.view, numbers)[0]), size=len(out))
    if coloured:
        crop = colour(torch.from_numpy(crop)[None], drawn.look.rows(one))[0].numpy()
    out[:] = crop.transpose(1, 2, 0)


def eval_crop(image: UInt8[np.ndarray, "H W 3"], data: DataSpec) -> UInt8[np.ndarray, "3 S S"]:
    """augment.eval_crop: what evaluation sees of `image`."""
    fast, (height, width) = kernels(), image.shape[:2]
    cut = draw.central(height, width, data)
    padded, as_it_is = min(cut.top, cut.left) < 0, (cut.height, cut.width) == (height, width)
    tall = draw.columns_first(height, width, cut.height, cut.width)  # the kernel resizes along the rows first
    if fast is None or padded or as_it_is or tall or draw.is_long(cut):
        return draw.eval_crop(image, data)
    out = np.empty((data.size, data.size, 3), np.uint8)
    fast.central(_lines(image), *cut, out.reshape(data.size, -1))
    return np.ascontiguousarray(out.transpose(2, 0, 1))


def _lines(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W*3"]:
    """As numba wants it: in one piece, in memory that could be written to."""
    if not (image.flags.c_contiguous and image.flags.writeable):
        image = image.copy()
    return image.reshape(len(image), -1)


@functools.cache
def _tables() -> tuple[UInt8[np.ndarray, " h"], UInt8[np.ndarray, " s"]]:
    hues, saturations = hsv_tables(torch.device("cpu"))
    return hues.numpy(), saturations.numpy()


def _flat(images: UInt8[np.ndarray, "n H W 3"]) -> UInt8[np.ndarray, "n H W*3"]:
    return images.reshape(*images.shape[:2], -1)


def normalize(
    crops: Bytes, *, mean: tuple[float, float, float], std: tuple[float, float, float], memory: Reused
) -> Float32[Tensor, "N 3 S S"]:
    """augment.normalize of views on the host, in channels_last, in `memory`."""
    fast = kernels()
    out = memory.take(crops.shape)
    views = torch.from_numpy(out).permute(0, 3, 1, 2)
    if fast is None:
        views.copy_(draw.normalize(torch.from_numpy(crops).permute(0, 3, 1, 2), mean=mean, std=std))
        return views
    shift, scale = (np.tile(row.numpy().ravel(), crops.shape[2]) for row in draw.shift_and_scale(mean, std))
    height = crops.shape[0] * crops.shape[1]
    fast.normalize(crops.reshape(height, -1), shift, scale, out.reshape(height, -1))
    return views
