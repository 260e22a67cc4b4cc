"""The user's torch data set, or anything else with items and a length, as Images."""

import copy
import functools
import io
import operator
import pickle
import threading
import types
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch.utils.data import DataLoader, IterableDataset

from moco.data.decode.bands import Raw
from moco.data.decode.decode import BadImage
from moco.data.sources.dataset_items import bands_in, describe_type, image_in, label_in, pixels
from moco.data.sources.images import DataError, Images, Subset
from moco.data.sources.names import Numbered

LONG = 4096  # [bytes] a bytes object of this length or more is shared between processes, not copied


def is_dataset(data: Any) -> bool:
    """Whether `data` has items by number, or is one of torch's kinds that `open_dataset` refuses with advice."""
    has_items = hasattr(data, "__getitem__") and not isinstance(data, bytes | dict)
    return has_items or isinstance(data, DataLoader | IterableDataset)


def open_dataset(data: Any, *, bands: bool = False) -> Images:
    """`data`, a map-style data set, list, array or tensor, as images. Its first item is read, as a check.

    Args:
        bands: items may have any number of bands, of any type of numbers.

    Raises:
        DataError: it has no items by number or no length, or its first item is no image.
    """
    _check_items(data)
    images = DatasetImages(data)
    if len(images):
        with suppress(BadImage):  # a run skips it
            (images.read_bands if bands else images.read)(0)
    return images  # pyright: ignore[reportReturnType]  # its labels are computed when they are first needed


def _check_items(data: Any) -> None:
    """Raise DataError when `data` has no items by number, or no length."""
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
                f"expected many images, as an array N x H x W x C or a tensor N x C x H x W, got {describe_type(data)}"
            )
        return
    try:
        len(data)
    except TypeError as error:
        raise DataError(
            f"expected a data set with a length (__len__); got {describe_type(data)}, which has no length ({error})"
        ) from None


class DatasetImages:
    """A map-style data set as Images. For what its items may be, see `moco.data.sources.dataset_items`.

    Only one thread reads it at a time: a data set that seeks and reads in one open file would return mixed-up images
    otherwise (in torch's DataLoader each worker has its own copy). Arrays, tensors and data sets with an attribute
    `thread_safe = True` are read by all threads at once.
    """

    def __init__(self, dataset: Any):
        self.dataset, self._count = dataset, len(dataset)
        self.names = Numbered(self._count)
        self.sizes = self.mtimes = np.zeros(self._count, dtype=np.int64)
        self._lock = _lock_for(dataset)

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            with self._lock:
                return pixels(image_in(self.dataset[index]))  # inside the lock: Pillow may read the file only here
        except DataError:
            raise
        except Exception as error:
            raise BadImage(self.names[index], f"{type(error).__name__}: {error}") from error

    def read_bands(self, index: int) -> Raw:
        """All bands of image `index`, as stored. Raises BadImage; DataError for an item that is no image."""
        try:
            with self._lock:
                return bands_in(image_in(self.dataset[index]))
        except DataError:
            raise
        except Exception as error:
            raise BadImage(self.names[index], f"{type(error).__name__}: {error}") from error

    @functools.cached_property
    def labels(self) -> Int64[np.ndarray, "n"] | None:
        """The data set's `targets`; without them the label of each item, for which every item is read once."""
        targets = getattr(self.dataset, "targets", None)
        if targets is None and self._count and self._label(0) is not None:
            targets = [self._label(i) for i in range(self._count)]
        if targets is None:
            return None
        try:
            return np.array([operator.index(target) for target in targets], dtype=np.int64)
        except TypeError as error:
            raise DataError(f"the labels of a data set must be whole numbers: {error}") from error

    def _label(self, index: int) -> Any:
        try:
            with self._lock:
                return label_in(self.dataset[index])
        except Exception as error:
            raise DataError(
                f"the label of item {index} cannot be read ({type(error).__name__}: {error}): give the data set a list "
                "`targets` of all labels"
            ) from error

    @functools.cached_property
    def classes(self) -> Sequence[str]:
        if self.labels is None or not self._count:
            return []
        return [str(name) for name in getattr(self.dataset, "classes", range(int(self.labels.max()) + 1))]

    def for_process(self) -> "DatasetImages":
        """These images with a copy of the data set, for a forked process. Raises DataError when it cannot be copied.

        A fork alone is not enough: forked processes share the position in an open file.
        """
        other = copy.copy(self)
        other.dataset = _own_copy(self.dataset)
        other._lock = _lock_for(other.dataset)
        return other


def for_process(images: Images) -> Images:
    """`images` for a forked process, with a copy of a user's data set. Raises DataError when it cannot be copied."""
    if isinstance(images, DatasetImages):
        return images.for_process()  # pyright: ignore[reportReturnType]
    if isinstance(images, Subset):
        other = copy.copy(images)
        other.images = for_process(images.images)
        return other
    return images


def _lock_for(dataset: Any) -> AbstractContextManager[object]:
    """What a thread acquires while it reads `dataset`: a lock, or nothing where several threads may read at once."""
    safe = isinstance(dataset, np.ndarray | torch.Tensor) or getattr(dataset, "thread_safe", False) is True
    return nullcontext() if safe else threading.Lock()


def _own_copy(dataset: Any) -> Any:
    """A copy by pickle, which refuses open files. Arrays, tensors, long bytes and functions are shared, not copied."""
    shared: list[Any] = []
    content = io.BytesIO()
    try:
        _Pickler(content, shared).dump(dataset)
        content.seek(0)
        return _Unpickler(content, shared).load()
    except Exception as error:
        raise DataError(
            f"each process needs a copy of the data set, and this {type(dataset).__name__} cannot be copied by pickle "
            f"({type(error).__name__}: {error}): run without processes (threads then read it, one at a time), or "
            "let the data set open its files when an item is read, or in __setstate__"
        ) from error


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, shared: list[Any]):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.shared = shared

    def persistent_id(self, obj: Any) -> int | None:
        numbers = isinstance(obj, torch.Tensor) or (isinstance(obj, np.ndarray) and obj.dtype != object)
        code = isinstance(obj, type | types.ModuleType) or (isinstance(obj, types.FunctionType) and not obj.__closure__)
        if not (numbers or code or (isinstance(obj, bytes) and len(obj) >= LONG)):
            return None
        self.shared.append(obj)
        return len(self.shared) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: list[Any]):
        super().__init__(file)
        self.shared = shared

    def persistent_load(self, pid: int) -> Any:
        return self.shared[pid]
