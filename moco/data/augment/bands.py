"""Views of images with any number of bands, in float32: crops by Pillow, band by band, and changes that fit any band.

There is no hue, saturation or grey. The random numbers are those of RGB views.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from moco.data.augment.colour import BRIGHTNESS, CONTRAST, Look
from moco.data.augment.crop import central_part, resized_box
from moco.data.decode.bands import Bands
from moco.recipe import DataSpec

View = Float32[np.ndarray, "S S c"]


def crop_bands(image: Bands, box: Int64[np.ndarray, " 4"], *, flip: bool, size: int) -> View:
    """`box` (top, left, height, width) of `image`, resized to `size` pixels square and mirrored if `flip`.

    Bilinear and antialiased, as Pillow resizes float images. Outside of the image all bands are 0.
    """
    bands = [resized_box(image[:, :, band], box, size) for band in range(image.shape[2])]
    return np.stack(bands, axis=2)[:, :: -1 if flip else 1]


def eval_crop_bands(image: Bands, data: DataSpec) -> Float32[np.ndarray, "c S S"]:
    """The central crop for evaluation, as `eval_crop`."""
    return np.stack([central_part(np.ascontiguousarray(image[:, :, band]), data) for band in range(image.shape[2])])


def change_bands(view: View, look: Look, factors: Float64[np.ndarray, " c"] | None) -> View:
    """The view with its values changed, in [0, 1].

    Args:
        look: of this view alone: brightness and contrast, in its order; blur; solarize.
        factors: of the brightness of each band on its own; None: it is not changed.
    """
    for step in look.order[0]:
        if step == BRIGHTNESS:
            view = np.clip(view * np.float32(look.factors[0, BRIGHTNESS]), 0, 1)
        elif step == CONTRAST:
            mean = view.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
            view = np.clip(mean + (view - mean) * np.float32(look.factors[0, CONTRAST]), 0, 1)
    if factors is not None:
        view = np.clip(view * factors.astype(np.float32), 0, 1)
    if look.sigma[0] > 0:
        view = _blur(view, float(look.sigma[0]))
    return np.where(view < 0.5, view, 1 - view) if look.solarize[0] else view


def _blur(view: View, sigma: float) -> View:
    """A Gaussian blur, cut off at 3 sigma; beyond the border the outermost pixels are repeated."""
    reach, (size, _, bands) = int(3 * sigma + 0.5), view.shape
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    share = np.empty((size, size * bands), np.float32)
    padded = np.pad(view, [(reach, reach), (0, 0), (0, 0)], mode="edge").reshape(-1, size * bands)
    down = _weighted_sum(weights, lambda place: padded[place : place + size], share)
    wide = np.pad(down.reshape(view.shape), [(0, 0), (reach, reach), (0, 0)], mode="edge").reshape(size, -1)
    width = size * bands
    return _weighted_sum(weights, lambda place: wide[:, place * bands : place * bands + width], share).reshape(
        view.shape
    )


def _weighted_sum(
    weights: Float32[np.ndarray, " w"], shifted: Callable[[int], np.ndarray], share: Float32[np.ndarray, "n m"]
) -> Float32[np.ndarray, "n m"]:
    """The sum of weights[place] * shifted(place), with `share` as scratch memory."""
    total = weights[0] * shifted(0)
    for place in range(1, len(weights)):
        np.multiply(shifted(place), weights[place], out=share)
        total += share
    return total
