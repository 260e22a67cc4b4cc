"""Somebody's torch data set, or anything else with items and a length, as Images."""

import copy
import functools
import io
import operator
import pickle
import threading
import types
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from moco.data.decode.decode import BadImage
from moco.data.sources.images import DataError, Images, Subset
from moco.data.sources.items import image_in, label_in, pixels

LONG = 4096  # [bytes] of a bytes object that is not copied


class Wrapped:
    """A map-style data set as Images. For what its items may be, see `moco.data.sources.items`.

    One thread at a time reads it, as in torch's DataLoader each worker has a copy of its own: a data set that seeks and
    reads in one open file would return mixed-up images otherwise. Arrays, tensors and data sets with an attribute
    `thread_safe = True` are read by all threads at once.
    """

    def __init__(self, dataset: Any):
        self.dataset, self._count = dataset, len(dataset)
        self.names = [str(i) for i in range(self._count)]
        self.sizes = self.mtimes = np.zeros(self._count, dtype=np.int64)
        self._lock = _lock_for(dataset)

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            with self._lock:
                return pixels(image_in(self.dataset[index]))  # a Pillow image may read its file only now
        except DataError:
            raise
        except Exception as error:
            raise BadImage(self.names[index], f"{type(error).__name__}: {error}") from error

    @functools.cached_property
    def labels(self) -> Int64[np.ndarray, "n"] | None:
        """The data set's `targets`, or else the label of each item: then every item is read, once."""
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

    def for_process(self) -> "Wrapped":
        """The same with a copy of the data set, for a forked process. Raises DataError when it cannot be copied.

        A fork alone does not copy enough: forked processes share the position in an open file.
        """
        other = copy.copy(self)
        other.dataset = _own_copy(self.dataset)
        other._lock = _lock_for(other.dataset)
        return other


def for_process(images: Images) -> Images:
    """`images` for a forked process, with a copy of a user's data set. Raises DataError when it cannot be copied."""
    if isinstance(images, Wrapped):
        return images.for_process()  # pyright: ignore[reportReturnType]
    if isinstance(images, Subset):
        other = copy.copy(images)
        other.images = for_process(images.images)
        return other
    return images


def _lock_for(dataset: Any) -> AbstractContextManager[object]:
    """What a thread holds while it reads `dataset`: a lock, or nothing where several may read at once."""
    safe = isinstance(dataset, np.ndarray | torch.Tensor) or getattr(dataset, "thread_safe", False) is True
    return nullcontext() if safe else threading.Lock()


def _own_copy(dataset: Any) -> Any:
    """A copy made by pickle, which refuses open files. Arrays, tensors, long bytes and functions are not copied."""
    kept: list[Any] = []
    content = io.BytesIO()
    try:
        _Pickler(content, kept).dump(dataset)
        content.seek(0)
        return _Unpickler(content, kept).load()
    except Exception as error:
        raise DataError(
            f"each process needs a copy of the data set, and this {type(dataset).__name__} cannot be copied by pickle "
            f"({type(error).__name__}: {error}): leave out processes (threads read it, one at a time), or let the data "
            "set open its files when it is read, or in __setstate__"
        ) from error


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, kept: list[Any]):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.kept = kept

    def persistent_id(self, obj: Any) -> int | None:
        numbers = isinstance(obj, torch.Tensor) or (isinstance(obj, np.ndarray) and obj.dtype != object)
        code = isinstance(obj, type | types.ModuleType) or (isinstance(obj, types.FunctionType) and not obj.__closure__)
        if not (numbers or code or (isinstance(obj, bytes) and len(obj) >= LONG)):
            return None
        self.kept.append(obj)
        return len(self.kept) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, kept: list[Any]):
        super().__init__(file)
        self.kept = kept

    def persistent_load(self, pid: int) -> Any:
        return self.kept[pid]
