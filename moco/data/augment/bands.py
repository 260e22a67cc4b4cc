"""Views of images with any number of bands, in float32: crops by Pillow, band by band, and changes that fit any band.

There is no hue, saturation or grey. The random numbers are those of RGB views.
"""

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
    reach = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        padding = [(reach, reach) if one == axis else (0, 0) for one in range(3)]
        padded, blurred = np.pad(view, padding, mode="edge"), np.zeros_like(view)
        for place, weight in enumerate(weights):
            blurred += weight * padded.take(range(place, place + view.shape[axis]), axis=axis)
        view = blurred
    return view
