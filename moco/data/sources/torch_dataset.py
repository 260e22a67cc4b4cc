"""Somebody's torch data set as Images."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image

from moco.data.decode.decode import BadImage, to_rgb
from moco.data.sources.images import DataError


class Wrapped:
    """A map-style torch data set as Images. Its items are an image, or (image, label).

    An image is a Pillow image of any mode, a uint8 tensor [C, H, W] or a uint8 array [H, W] or [H, W, C], C 1 or 3.
    """

    def __init__(self, dataset: Any):
        self.dataset, self._count = dataset, len(dataset)
        self.names = [str(i) for i in range(self._count)]
        self.sizes = self.mtimes = np.zeros(self._count, dtype=np.int64)

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            item = self.dataset[index]
        except Exception as error:
            raise BadImage(self.names[index], f"{type(error).__name__}: {error}") from error
        try:
            return _pixels(item[0] if isinstance(item, tuple | list) else item)
        except DataError:
            raise
        except Exception as error:  # a Pillow image may decode, and fail, as late as here
            raise BadImage(self.names[index], f"{type(error).__name__}: {error}") from error

    @functools.cached_property
    def labels(self) -> Int64[np.ndarray, "n"] | None:
        """The data set's `targets`, or else the second part of each item: then every item is read, once."""
        targets = getattr(self.dataset, "targets", None)
        if targets is None and self._count and isinstance(self.dataset[0], tuple | list) and len(self.dataset[0]) > 1:
            targets = [self.dataset[i][1] for i in range(self._count)]
        if targets is None:
            return None
        try:
            return np.array([operator.index(target) for target in targets], dtype=np.int64)
        except TypeError as error:
            raise DataError(f"the labels of a data set must be whole numbers: {error}") from error

    @functools.cached_property
    def classes(self) -> Sequence[str]:
        if self.labels is None or not self._count:
            return []
        return [str(name) for name in getattr(self.dataset, "classes", range(int(self.labels.max()) + 1))]


def _pixels(image: Any) -> UInt8[np.ndarray, "H W 3"]:
    """What a data set gave for an image, as RGB. Raises DataError when it is no image at all."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, torch.Tensor) and image.ndim == 3:
        image = image.permute(1, 2, 0)
    array = np.asarray(image) if isinstance(image, torch.Tensor | np.ndarray) else None
    if array is None or array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,)):
        got = type(image).__name__ if array is None else f"{array.dtype} of shape {array.shape}"
        raise DataError(
            f"a data set must give Pillow images, uint8 tensors [C, H, W] or uint8 arrays [H, W, C] with 1 or 3 "
            f"channels, alone or as (image, label); got {got}: take away its transforms, views are made here"
        )
    return np.array(np.broadcast_to(array.reshape(*array.shape[:2], -1), (*array.shape[:2], 3)))
