"""Changes of colour: jitter, grey, blur and solarize for a whole batch, on any device, with Pillow's arithmetic.

Between changes pixels are integers stored in float32, because Pillow truncates to bytes after each change. The CPU
decides which images a change affects, so that it never waits for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor

Pixels = Float32[Tensor, "n 3 S S"]  # whole numbers in 0..255
Plane = Float32[Tensor, "n S S"]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
CACHED = 2**20  # values processed at a time on a CPU: more do not fit its cache, and took 1.5 times as long at 224


@dataclass(frozen=True)
class Look:
    """The colour changes drawn for one view of N images."""

    order: Int64[np.ndarray, "N 4"]  # which change is first, second, ...: BRIGHTNESS to HUE, or -1 for none
    factors: Float64[np.ndarray, "N 4"]  # of BRIGHTNESS, CONTRAST, SATURATION (1: no change), HUE (0: none; in turns)
    grey: Bool[np.ndarray, " N"]
    grey_first: bool  # before the jitter (MoCo v1), or after it
    sigma: Float64[np.ndarray, " N"]  # [pixels] of the blur, or 0 for none
    solarize: Bool[np.ndarray, " N"]

    def rows(self, rows: slice) -> "Look":
        """The look of some of the images."""
        return replace(
            self,
            order=self.order[rows],
            factors=self.factors[rows],
            grey=self.grey[rows],
            sigma=self.sigma[rows],
            solarize=self.solarize[rows],
        )


@dataclass(frozen=True)
class Change:
    """One change of colour, of the images `rows`, with one row of `values` for each."""

    apply: Callable[..., Pixels]  # of the pixels, the values and the tables
    rows: Int64[np.ndarray, " n"]
    values: Float32[np.ndarray, "n v"]
    tables: tuple[Tensor, ...] = ()  # lookup tables that it needs, on the device


def colour(crops: UInt8[Tensor, "N 3 S S"], look: Look, *, compiled: bool = False) -> UInt8[Tensor, "N 3 S S"]:
    """The crops with their colours changed, on their device. The CPU does not wait for the device.

    The same as Pillow, bit for bit. A change takes some twenty small kernels, or one or two when `compiled` by torch.
    """
    few = max(1, CACHED // crops.shape[1:].numel())
    if crops.device.type == "cpu" and len(crops) > few:
        parts = [slice(start, start + few) for start in range(0, len(crops), few)]
        return torch.cat([colour(crops[part], look.rows(part), compiled=compiled) for part in parts])
    changes = _changes(look, crops.device)
    rows = _to_device([change.rows for change in changes], crops.device)
    values = _to_device([change.values for change in changes], crops.device)
    pixels = crops.to(torch.float32, memory_format=torch.contiguous_format)
    for change, row, value in zip(changes, rows, values, strict=True):
        apply = _compiled(change.apply) if compiled else change.apply
        pixels.index_copy_(0, row, apply(pixels.index_select(0, row), value, *change.tables))
    return pixels.to(torch.uint8)


@cache
def _compiled(apply: Callable[..., Pixels]) -> Callable[..., Pixels]:
    """Compiled for any number of images, because mini-batches differ in how many images a change affects."""
    return torch.compile(apply, dynamic=True)


def _changes(look: Look, device: torch.device) -> list[Change]:
    """The changes of colour, in order, each with the images that it touches."""
    grey = [_change(_grey, look.grey)]
    jitter = [
        _change(apply, look.order[:, position] == op, values, hsv_tables(device) if op == HUE else ())
        for position in range(4)
        for op, (apply, values) in enumerate(
            [
                (_brightness, look.factors[:, [BRIGHTNESS]]),
                (_contrast, look.factors[:, [CONTRAST]]),
                (_saturation, look.factors[:, [SATURATION]]),
                (_hue, np.trunc(look.factors[:, [HUE]] * 255) % 256),  # torchvision adds it to a byte, which wraps
            ]
        )
    ]
    blur = _change(_blur, look.sigma > 0, box_weights(look.sigma))
    solarize = _change(_solarize, look.solarize)
    changes = [*(grey + jitter if look.grey_first else jitter + grey), blur, solarize]
    return [change for change in changes if change.rows.size]


def _change(
    apply: Callable[..., Pixels],
    which: Bool[np.ndarray, " N"],
    values: np.ndarray | None = None,
    tables: tuple[Tensor, ...] = (),
) -> Change:
    rows = np.flatnonzero(which)
    chosen = np.empty((len(rows), 0)) if values is None else values[rows]
    return Change(apply, rows, chosen.astype(np.float32), tables)


def _to_device(arrays: list[np.ndarray], device: torch.device) -> list[Tensor]:
    """The arrays as tensors on `device`, in one transfer."""
    if not arrays:
        return []
    together = torch.from_numpy(np.concatenate([array.ravel() for array in arrays])).to(device, non_blocking=True)
    parts = together.split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def _brightness(x: Pixels, factor: Float32[Tensor, "n 1"]) -> Pixels:
    return x.mul_(factor[:, :, None, None]).clamp_(max=255).floor_()


def _contrast(x: Pixels, factor: Float32[Tensor, "n 1"]) -> Pixels:
    luma = _luma(x)
    count = luma[0].numel()
    total = luma.sum(2).sum(1, dtype=torch.int64)  # the sum of a row is exact in float32, that of an image may not be
    mean = (2 * total + count).div(2 * count, rounding_mode="floor").float()  # int(mean + 0.5)
    return _blend(mean[:, None, None, None], x, factor)


def _saturation(x: Pixels, factor: Float32[Tensor, "n 1"]) -> Pixels:
    return _blend(_luma(x).unsqueeze(1), x, factor)


def _blend(dull: Tensor, x: Pixels, factor: Float32[Tensor, "n 1"]) -> Pixels:
    """Pillow's Image.blend(dull, x, factor): from `dull` towards `x` and past it, cut to bytes."""
    return x.sub_(dull).mul_(factor[:, :, None, None]).add_(dull).clamp_(0, 255).floor_()


def _luma(x: Pixels) -> Plane:
    """Pillow's convert("L"). All of it is exact: 255 * 2**16 + 2**15 is below 2**24."""
    red, green, blue = x.unbind(1)
    total = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471)
    return total.add_(0x8000).mul_(2**-16).floor_()


def _grey(x: Pixels, _: Tensor) -> Pixels:
    return _luma(x).unsqueeze(1).expand_as(x)


def _solarize(x: Pixels, _: Tensor) -> Pixels:
    """255 - x from 128 on, else x."""
    return 127.5 - (x - 127.5).abs_()


def _hue(x: Pixels, shift: Float32[Tensor, "n 1"], hues: Tensor, saturations: Tensor) -> Pixels:
    """Rotate the hue by shift / 255 of the circle: Pillow's convert("HSV"), add a byte to the hue, and back."""
    hue, saturation, value = _hsv(x, hues, saturations)
    hue.add_(shift.unsqueeze(2))
    hue.sub_(hue.div(256).floor_().mul_(256))
    angle = hue.mul_(6)  # 255 is a sixth of the circle
    lost = torch.stack(
        [510 - (angle - 765).abs_(), (angle - 510).abs_().sub_(255), (angle - 1020).abs_().sub_(255)], dim=1
    ).clamp_(0, 255)  # how far red, green and blue fall below `value` at full saturation
    lost.mul_(saturation.mul_(value).unsqueeze(1))  # exact: 255**3 is below 2**24
    return value.unsqueeze(1) - lost.div_(255 * 255).add_(0.5).floor_()


def _hsv(x: Pixels, hues: Tensor, saturations: Tensor) -> tuple[Plane, Plane, Plane]:
    """Pillow's convert("HSV"), each in 0..255."""
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    is_red = (red - value).add_(1).clamp_(min=0)  # 1 where red is the largest, else 0, as pixels are whole numbers
    is_green = (green - value).add_(1).clamp_(min=0).mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    lead = is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)
    place = is_green.add_(is_blue, alpha=2).mul_(511).add_(lead).add_(255).mul_(256).add_(chroma)
    hue = hues.index_select(0, place.flatten().int()).view_as(value)
    saturation = saturations.index_select(0, (chroma * 256).add_(value).flatten().int()).view_as(value)
    return hue.float(), saturation.float(), value


@lru_cache(maxsize=8)  # devices
def hsv_tables(device: torch.device) -> tuple[UInt8[Tensor, " h"], UInt8[Tensor, " s"]]:
    """Hue by (sector, lead, chroma) and saturation by (chroma, value), as bytes, flattened.

    Sector: which of red, green, blue is the largest. Lead: how much the next channel around the circle is ahead of the
    one after it, plus 255. Pillow truncates quotients, in float and double by turns: at whole numbers the last bit of a
    quotient decides, so this follows it type by type.
    """
    sector, lead, chroma = np.ogrid[0:3, -255:256, 0:256]
    divisor = np.maximum(chroma, 1).astype(np.float32)
    ahead = np.minimum(chroma, chroma + lead).astype(np.float32) / divisor
    behind = np.minimum(chroma, chroma - lead).astype(np.float32) / divisor
    sixth = (2.0 * sector + ahead.astype(np.float64) - behind).astype(np.float32)
    turn = np.fmod(sixth.astype(np.float64) / 6 + 1.0, 1.0).astype(np.float32)
    hue = np.where(chroma == 0, 0, turn.astype(np.float64) * 255).clip(0, 255).astype(np.uint8)
    chroma, value = np.ogrid[0:256, 0:256]
    share = chroma.astype(np.float32) / np.maximum(value, 1).astype(np.float32)
    saturation = (share.astype(np.float64) * 255).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(hue.ravel()).to(device), torch.from_numpy(saturation.ravel()).to(device)


def _blur(x: Pixels, weights: Float32[Tensor, "n w"]) -> Pixels:
    """Pillow's GaussianBlur: three box blurs along the rows, three along the columns, rounded each time.

    A weight is a whole number of 2**-24, in two halves of 12 bits, so that every sum is exact in float32.
    """
    high, low = weights[:, :, None, None, None].chunk(2, dim=1)
    reach = high.shape[1] - 1
    for dim, padding in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        for _ in range(3):
            padded, far = F.pad(x, padding, mode="replicate"), x.shape[dim]
            above, below = x * high[:, 0], (x * low[:, 0]).add_(2**23)  # half of 2**24: to the nearest
            for d in range(1, reach + 1):
                pair = padded.narrow(dim, reach - d, far) + padded.narrow(dim, reach + d, far)
                above.addcmul_(pair, high[:, d])
                below.addcmul_(pair, low[:, d])
            x = above.add_(below.mul_(2**-12).floor_()).mul_(2**-12).floor_()
    return x


class Boxes(NamedTuple):
    """The box of N blurs: its inner pixels, 2 reach + 1, and the two at its ends, which count less."""

    reach: Int64[np.ndarray, " N"]
    full: Int64[np.ndarray, " N"]  # weight of an inner pixel [2**-24]
    edge: Int64[np.ndarray, " N"]  # weight of an end


def boxes(sigma: Float64[np.ndarray, " N"]) -> Boxes:
    """The box that, three times applied, blurs by about `sigma`, in the float and 24-bit arithmetic of Pillow.

    An extended box, so that its variance is right (Gwosdek et al., SSVM 2011).
    """
    variance = (sigma.astype(np.float32) ** 2 / np.float32(3)).astype(np.float32)
    whole = np.floor((np.sqrt(12 * variance.astype(np.float64) + 1).astype(np.float32) - 1) / 2)
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    radius = (whole + rest).astype(np.float32)
    full = np.floor(np.float32(2**24) / (radius * 2 + 1)).astype(np.int64)
    reach = radius.astype(np.int64)
    return Boxes(reach, full, (2**24 - (2 * reach + 1) * full) // 2)


def box_weights(sigma: Float64[np.ndarray, " N"]) -> Float32[np.ndarray, "N w"]:
    """The weights of pixels at distance 0, 1, ... of the centre, 0 beyond the box: upper halves, then lower halves."""
    reach, full, edge = (column[:, None] for column in boxes(sigma))
    distance = np.arange(int(reach.max(initial=0)) + 2)
    weights = np.where(distance <= reach, full, np.where(distance == reach + 1, edge, 0))
    return np.concatenate([weights >> 12, weights & 0xFFF], axis=1).astype(np.float32)
