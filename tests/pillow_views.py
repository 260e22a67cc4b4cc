"""Views as torchvision's functions on Pillow images make them: the reference for ours."""

from collections.abc import Callable, Sequence

import numpy as np
import PIL
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional as TF

from moco.data.augment.colour import BRIGHTNESS, CONTRAST, HUE, SATURATION
from moco.data.augment.random_parameters import RandomNumbers, crop_boxes, flips, look, quarter_turns, vertical_flips
from moco.recipe import View


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with the spectrum of photographs (1 / f), their reddish colours, and edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(rng.normal(size=(3, height, width))) / np.maximum(frequency, 1 / max(height, width))
    layers = np.fft.irfft2(spectrum, s=(height, width))
    layers /= layers.std(axis=(1, 2), keepdims=True)
    light, red, blue = layers[0] * 55 + 115, layers[1] * 14 + 18, layers[2] * 14 - 14
    pixels = np.stack([light + red, light, light + blue], axis=-1)
    for _ in range(6):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        high, wide = rng.integers(6, height // 2), rng.integers(6, width // 2)
        pixels[top : top + high, left : left + wide] += rng.normal([15, 0, -15], 35)
    return pixels.clip(0, 255).astype(np.uint8)


# Whether this Pillow resizes along the columns first where that is quicker.
ANY_ORDER = int(PIL.__version__.split(".")[0]) >= 13


def resized(picture: Image.Image, height: int, width: int) -> Image.Image:
    """torchvision's resize, with the bits of Pillow 13: older releases always resize along the rows first."""
    if not ANY_ORDER and picture.height > height and picture.height - height > 2 * (picture.width - width):
        picture = TF.resize(picture, [height, picture.width])
    return TF.resize(picture, [height, width])


def resized_crop(picture: Image.Image, box: Sequence[int], size: int) -> Image.Image:
    """torchvision's resized_crop, with the bits of Pillow 13."""
    return resized(TF.crop(picture, *box), size, size)


ADJUST: dict[int, Callable[[Image.Image, float], Image.Image]] = {
    BRIGHTNESS: TF.adjust_brightness,
    CONTRAST: TF.adjust_contrast,
    SATURATION: TF.adjust_saturation,
    HUE: TF.adjust_hue,
}


def turned(picture: Image.Image, view: View, numbers: RandomNumbers) -> Image.Image:
    """Mirrored, flipped vertically, and rotated counterclockwise."""
    picture = TF.hflip(picture) if flips(view, numbers)[0] else picture
    picture = TF.vflip(picture) if vertical_flips(view, numbers)[0] else picture
    return picture.rotate(90 * int(quarter_turns(view, numbers)[0]))


def pillow_view(image: np.ndarray, view: View, numbers: RandomNumbers, size: int) -> np.ndarray:
    """One image's view by `numbers`: torchvision's functions, in the order of the authors' transforms."""
    seen = look(view, numbers)
    box = crop_boxes(view, numbers, heights=np.array([image.shape[0]]), widths=np.array([image.shape[1]]))[0]
    picture = resized_crop(Image.fromarray(image), box.tolist(), size)
    if view.rotate90:  # before the blur, whose rounding knows rows from columns
        picture = turned(picture, view, numbers)
    if seen.grey[0] and view.grey_first:
        picture = TF.rgb_to_grayscale(picture, 3)
    for op in seen.order[0]:
        if op >= 0:
            picture = ADJUST[op](picture, float(seen.factors[0, op]))
    if seen.grey[0] and not view.grey_first:
        picture = TF.rgb_to_grayscale(picture, 3)
    if seen.sigma[0] > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(float(seen.sigma[0])))
    if seen.solarize[0]:
        picture = ImageOps.solarize(picture)
    if not view.rotate90:
        picture = turned(picture, view, numbers)
    return np.asarray(picture).transpose(2, 0, 1)
