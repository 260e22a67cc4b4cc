"""Make views on the CPU, by the compiled kernels if available, otherwise by Pillow and torch. Both give the same bits.

Views are bytes, N x S x S x 3: the memory layout of a tensor N x 3 x S x S in channels_last.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Shaped, UInt8
from torch import Tensor

from moco.data.augment.bands import change_bands, crop_bands, eval_crop_bands
from moco.data.augment.colour import HUE, Look, boxes, colour, hsv_tables
from moco.data.augment.crop import central_crop, columns_first, crop_part, is_long
from moco.data.augment.crop import crop as pillow_crop
from moco.data.augment.crop import eval_crop as pillow_eval_crop
from moco.data.augment.kernel_loading import kernels
from moco.data.augment.normalize import normalize as torch_normalize
from moco.data.augment.normalize import shift_and_scale
from moco.data.augment.random_parameters import (
    Choice,
    RandomNumbers,
    band_factors,
    crop_boxes,
    flips,
    look,
    quarter_turns,
    vertical_flips,
)
from moco.data.decode.bands import Bands, Pixels
from moco.data.decode.scaled import Scaled, largest_divisor
from moco.data.loader.buffers import BufferPool
from moco.recipe import DataSpec, View

Bytes = UInt8[np.ndarray, "N S S 3"]
Crops = Bytes | Float32[np.ndarray, "N S S c"]
GREY, BLUR, SOLARIZE = 4, 5, 6  # steps of a view beside the four of its jitter, as in kernels.py


@dataclass(frozen=True)
class DrawnView:
    """One view of N images: its distribution, and the random numbers drawn for it."""

    view: View
    numbers: RandomNumbers

    @cached_property
    def look(self) -> Look:
        return look(self.view, self.numbers)

    def box(self, row: int, height: int, width: int) -> Int64[np.ndarray, " 4"]:
        """What view `row` shows of an image of that size: (top, left, height, width) [pixels]."""
        numbers = self.numbers.rows(slice(row, row + 1))
        return crop_boxes(self.view, numbers, heights=np.array([height]), widths=np.array([width]))[0]

    def flip(self, row: int) -> bool:
        """Whether view `row` is mirrored."""
        return bool(flips(self.view, self.numbers.rows(slice(row, row + 1)))[0])

    @cached_property
    def band_factors(self) -> Float64[np.ndarray, "N bands"]:
        return band_factors(self.view, self.numbers)

    def turn(self, crop: Shaped[np.ndarray, "c S S"], row: int) -> Shaped[np.ndarray, "c S S"]:
        """View `row`, flipped vertically and turned."""
        numbers = self.numbers.rows(slice(row, row + 1))
        upside_down, turns = vertical_flips(self.view, numbers)[0], quarter_turns(self.view, numbers)[0]
        if not upside_down and not turns:
            return crop
        return np.ascontiguousarray(np.rot90(crop[:, ::-1] if upside_down else crop, turns, axes=(1, 2)))

    @cached_property
    def program(self) -> Float64[np.ndarray, "N length"]:
        """Each view as a row of numbers, in the order of kernels.py."""
        view, numbers, box = self.view, self.numbers, boxes(self.look.sigma)
        ratios = [math.log(ratio) for ratio in view.crop_ratio]
        columns = [
            numbers.tries(Choice.AREA, *view.crop_area), np.exp(numbers.tries(Choice.RATIO, *ratios)),
            numbers.of(Choice.TOP), numbers.of(Choice.LEFT), flips(view, numbers),
            np.full(len(numbers), view.crop_area[1] > 1), *(np.full(len(numbers), ratio) for ratio in view.crop_ratio),
            *_colour_steps(self.look), box.reach, box.full, box.edge,
            vertical_flips(view, numbers), quarter_turns(view, numbers),
        ]  # fmt: skip
        return np.column_stack(columns).astype(np.float64)


def _colour_steps(look: Look) -> tuple[Int64[np.ndarray, "N 7"], Float64[np.ndarray, "N 7"]]:
    """The colour changes of each view in order (-1: none), and their factors."""
    grey, blur, solarize = (
        np.where(on, step, -1)[:, None]
        for on, step in ((look.grey, GREY), (look.sigma > 0, BLUR), (look.solarize, SOLARIZE))
    )
    jitter_and_grey = [grey, look.order] if look.grey_first else [look.order, grey]
    steps = np.concatenate([*jitter_and_grey, blur, solarize], axis=1)
    factors = np.pad(look.factors, ((0, 0), (0, 3)))  # by step
    factors[:, HUE] = np.trunc(factors[:, HUE] * 255) % 256  # torchvision adds it to a byte, which wraps
    return steps, np.take_along_axis(factors, steps, axis=1)


def write_views(image: Pixels, drawn: Sequence[DrawnView], row: int, crops: Sequence[Crops], *, coloured: bool) -> None:
    """Write each view of `image` into row `row` of `crops`: `coloured`, or the crop alone."""
    if image.dtype != np.uint8:
        for view, out in zip(drawn, crops, strict=True):
            _view_of_bands(image, view, row, out[row])
        return
    fast = kernels()
    if fast is None:
        for view, out in zip(drawn, crops, strict=True):
            _slow_view(image, view, row, out[row], coloured=coloured)
        return
    rows, tables = _pixel_rows(image), _tables()
    for view, out in zip(drawn, crops, strict=True):
        fast.view(rows, view.program[row], coloured, *tables, out[row].reshape(out.shape[1], -1))


def views_of_scaled(
    image: Scaled, drawn: Sequence[DrawnView], row: int, crops: Sequence[Crops], *, coloured: bool
) -> None:
    """`write_views` of an image that was decoded smaller: the same parts of it. Their sides may lie within a pixel."""
    if image.divisor == 1:
        write_views(image.pixels, drawn, row, crops, coloured=coloured)
        return
    fast, rows = kernels(), _pixel_rows(image.pixels)
    for view, out in zip(drawn, crops, strict=True):
        top, left, height, width = view.box(row, image.height, image.width) / image.divisor
        top, left = top + image.top, left + image.left
        part = np.array([top, left, top + height, left + width])
        if fast is None:
            crop = crop_part(image.pixels, part, flip=view.flip(row), size=out.shape[1])
            _write_slow(crop, view, row, out[row], coloured=coloured)
        else:
            fast.view_of_part(rows, part, view.program[row], coloured, *_tables(), out[row].reshape(out.shape[1], -1))


def divisor_for(height: int, width: int, *, drawn: Sequence[DrawnView], row: int, sizes: Sequence[int]) -> int:
    """By how much an image can be decoded smaller so that each of its crops has at least the pixels of its view."""
    return min(
        largest_divisor(int(view.box(row, height, width)[2:].min()), least=size)
        for view, size in zip(drawn, sizes, strict=True)
    )


def views_of_cached(
    images: UInt8[np.ndarray, "n H W 3"],
    ids: Int64[np.ndarray, " m"],
    drawn: Sequence[DrawnView],
    rows: slice,
    crops: Sequence[Bytes],
    *,
    coloured: bool,
) -> None:
    """`write_views` of the images `ids` among those in memory, with one call for each view."""
    fast = kernels()
    if fast is None:
        for row, index in zip(range(rows.start, rows.stop), ids, strict=True):
            write_views(images[index], drawn, row, crops, coloured=coloured)
        return
    for view, out in zip(drawn, crops, strict=True):
        fast.write_views(_flat(images), ids, view.program[rows], coloured, *_tables(), _flat(out[rows]))


def _slow_view(
    image: UInt8[np.ndarray, "H W 3"], drawn: DrawnView, row: int, out: UInt8[np.ndarray, "S S 3"], *, coloured: bool
) -> None:
    crop = pillow_crop(image, drawn.box(row, *image.shape[:2]), flip=drawn.flip(row), size=len(out))
    _write_slow(crop, drawn, row, out, coloured=coloured)


def _view_of_bands(image: Bands, drawn: DrawnView, row: int, out: Float32[np.ndarray, "S S c"]) -> None:
    crop = crop_bands(image, drawn.box(row, *image.shape[:2]), flip=drawn.flip(row), size=len(out))
    crop = drawn.turn(crop.transpose(2, 0, 1), row).transpose(1, 2, 0)
    factors = drawn.band_factors[row] if drawn.view.jitter.bands else None
    out[:] = change_bands(crop, drawn.look.rows(slice(row, row + 1)), factors)


def _write_slow(
    crop: UInt8[np.ndarray, "3 S S"], drawn: DrawnView, row: int, out: UInt8[np.ndarray, "S S 3"], *, coloured: bool
) -> None:
    crop = drawn.turn(crop, row)
    if coloured:
        crop = colour(torch.from_numpy(crop)[None], drawn.look.rows(slice(row, row + 1)))[0].numpy()
    out[:] = crop.transpose(1, 2, 0)


def eval_crop(image: Pixels, data: DataSpec) -> Shaped[np.ndarray, "c S S"]:
    """The same as `pillow_eval_crop`, but faster; of bands as `eval_crop_bands`."""
    if image.dtype != np.uint8:
        return eval_crop_bands(image, data)
    fast, (height, width) = kernels(), image.shape[:2]
    cut = central_crop(height, width, data)
    is_padded, is_same_size = min(cut.top, cut.left) < 0, (cut.height, cut.width) == (height, width)
    by_columns = columns_first(height, width, cut.height, cut.width)  # the kernel resizes along the rows first
    if fast is None or is_padded or is_same_size or by_columns or is_long(cut):
        return pillow_eval_crop(image, data)
    out = np.empty((data.size, data.size, 3), np.uint8)
    fast.central(_pixel_rows(image), *cut, out.reshape(data.size, -1))
    return np.ascontiguousarray(out.transpose(2, 0, 1))


def _pixel_rows(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W*3"]:
    """`image` as H x 3 W bytes, contiguous and writable, as numba needs it."""
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
    crops: Bytes | Float32[np.ndarray, "N S S c"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    pool: BufferPool,
) -> Float32[Tensor, "N c S S"]:
    """The same as `torch_normalize`, in channels_last and in memory of `pool`."""
    fast = kernels() if crops.dtype == np.uint8 else None
    out = pool.take(crops.shape)
    views = torch.from_numpy(out).permute(0, 3, 1, 2)
    if fast is None:
        views.copy_(torch_normalize(torch.from_numpy(crops).permute(0, 3, 1, 2), mean=mean, std=std))
        return views
    shift, scale = (np.tile(row.numpy().ravel(), crops.shape[2]) for row in shift_and_scale(mean, std, torch.uint8))
    height = crops.shape[0] * crops.shape[1]
    fast.normalize(crops.reshape(height, -1), shift, scale, out.reshape(height, -1))
    return views
