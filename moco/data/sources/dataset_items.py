"""Find the image and the label in an item of the user's data set, or say what to do where there is none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from moco.data.decode.bands import Raw, as_bands, picture_bands
from moco.data.decode.decode import to_rgb
from moco.data.sources.images import LABEL_NAMES, DataError
from moco.text import escape

EXPECTED = (
    "the items of a data set must be Pillow images, uint8 tensors [C, H, W] or uint8 arrays [H, W, C] with 1 or 3 "
    "channels; alone, as (image, label, ...) or as a dict with one image"
)

EXPECTED_BANDS = "the items of a data set must be Pillow images, tensors [C, H, W] or arrays [H, W, C] of numbers"


def image_in(item: Any) -> Any:
    """The image of an item: the item itself, the first of a tuple, the only image of a dict. Raises DataError."""
    if isinstance(item, tuple | list) and len(item):
        return image_in(item[0]) if isinstance(item[0], Mapping) else item[0]
    if not isinstance(item, Mapping):
        return item
    images = [name for name, value in item.items() if _is_image(value)]
    if len(images) == 1:
        return item[images[0]]
    came = ", ".join(f"{escape(str(name))}: {describe_type(value)}" for name, value in item.items())
    if images:
        raise DataError(
            f"an item has {len(images)} images ({came}): return only one of them from a Dataset of your own"
        )
    raise DataError(f"{EXPECTED}; got a dict without such an image ({came}){_advice(*item.values())}")


def label_in(item: Any) -> Any:
    """The label of an item: the second part of a tuple, one of LABEL_NAMES of a dict; None where there is none."""
    if isinstance(item, Mapping):
        return next((item[name] for name in LABEL_NAMES if item.get(name) is not None), None)
    return item[1] if isinstance(item, tuple | list) and len(item) > 1 else None


def pixels(image: Any) -> UInt8[np.ndarray, "H W 3"]:
    """An image from a data set as RGB. Raises DataError for what is no image."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not _is_image(image):
        raise DataError(f"{EXPECTED}; got {describe_type(image)}{_advice(image)}")
    array = np.asarray(image.permute(1, 2, 0) if isinstance(image, torch.Tensor) and image.ndim == 3 else image)
    return np.array(np.broadcast_to(array.reshape(*array.shape[:2], -1), (*array.shape[:2], 3)))


def bands_in(image: Any) -> Raw:
    """All bands of an image from a data set, as stored. Raises DataError for what is no image."""
    try:
        if isinstance(image, Image.Image):
            return picture_bands(image)
        if isinstance(image, torch.Tensor):
            return as_bands(image.permute(1, 2, 0).numpy() if image.ndim == 3 else image.numpy(), describe_type(image))
        if isinstance(image, np.ndarray):
            return as_bands(image, describe_type(image))
    except ValueError as error:
        raise DataError(str(error)) from error
    raise DataError(f"{EXPECTED_BANDS}; got {describe_type(image)}")


def describe_type(value: Any) -> str:
    """The type of a value, for messages; of an array also its dtype and shape."""
    if isinstance(value, torch.Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array {list(value.shape)}"
    return f"a {type(value).__name__}"


def _is_image(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dtype == torch.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[0] in (1, 3)))
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3)))
    return isinstance(value, Image.Image)


def _advice(*values: Any) -> str:
    """How to make an image of the first value that is nearly one."""
    for value in values:
        if isinstance(value, torch.Tensor | np.ndarray) and value.ndim in (2, 3):
            return f": {_advice_on(value)}"
        if isinstance(value, Mapping) and {"bytes", "path"} <= value.keys():
            return ": let the data set decode its images (Hugging Face's Image(decode=True))"
        if isinstance(value, str | bytes):
            return ": open the image in the data set, or give a folder or a list file"
    return ""


def _advice_on(value: torch.Tensor | np.ndarray) -> str:
    whole = value.dtype in (torch.uint8, np.uint8)
    if not whole:
        return "remove its transforms (ToTensor, Normalize, ...): views are made here"
    if isinstance(value, torch.Tensor) and value.shape[-1] in (1, 3):
        return "it looks like [H, W, C]: permute(2, 0, 1) makes it [C, H, W]"
    if isinstance(value, np.ndarray) and value.shape[0] in (1, 3):
        return "it looks like [C, H, W]: transpose(1, 2, 0) makes it [H, W, C]"
    return "keep the three channels R, G and B, or one grey channel"
