"""DATA of any kind as a sequence of images: a new kind of source is a file of its own, and a line here."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from moco.data.decode.decode import BadImage
from moco.data.sources.background_scan import Ahead
from moco.data.sources.folder import find_images
from moco.data.sources.images import DataError, Images
from moco.data.sources.items import described
from moco.data.sources.torch_dataset import Wrapped


@runtime_checkable
class MapStyle(Protocol):
    """Items by number, as of a map-style torch data set, a Hugging Face data set, a list or an array."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Sources = str | Path | Sequence[str | Path] | Ahead | Images | Dataset[Any] | MapStyle
KINDS = "folders, list files, a map-style Dataset, a list of images, or an array N x H x W x C"


def open_images(data: Any) -> Images:
    """`data`, one of Sources, as images.

    Raises:
        DataError: what `find_images` raises, data of another kind, or a first item that is no image.
    """
    if isinstance(data, Ahead):
        return data.find()
    if isinstance(data, str | Path):
        return find_images([data])
    if isinstance(data, list | tuple) and all(isinstance(one, str | Path) for one in data):
        return find_images(data)
    if callable(getattr(data, "read", None)) and hasattr(data, "names"):
        return data  # pyright: ignore[reportReturnType]
    _check_items(data)
    images = Wrapped(data)
    if len(images):
        with suppress(BadImage):  # it may be excluded later
            images.read(0)  # items that are no images are refused before a run begins
    return images  # pyright: ignore[reportReturnType]  # its labels are computed when asked for


def _check_items(data: Any) -> None:
    """Raises DataError when `data` is not a sequence of images: when it has no items by number, or no length."""
    if isinstance(data, DataLoader):
        raise DataError(
            "got a DataLoader: give its data set (loader.dataset), without its transforms. Views and mini-batches are "
            "made here: batch_size and shuffling are the recipe's"
        )
    if isinstance(data, IterableDataset):
        raise DataError(
            "got an IterableDataset: images are drawn by their number, in another order each epoch. Give a map-style "
            "Dataset (__getitem__ and __len__), a list of its images where they fit into memory, or write them into a "
            "folder"
        )
    if isinstance(data, np.ndarray | torch.Tensor):
        if data.ndim != 4 and not (data.ndim == 3 and min(data.shape[0], data.shape[-1]) > 3):
            raise DataError(
                f"expected many images, as an array N x H x W x C or a tensor N x C x H x W, got {described(data)}"
            )
        return
    try:
        len(data)
    except TypeError as error:
        raise DataError(f"expected {KINDS}; got {described(data)}, which has no length ({error})") from None
    if not hasattr(data, "__getitem__") or isinstance(data, bytes | dict):
        raise DataError(f"expected {KINDS}; got {described(data)}")
