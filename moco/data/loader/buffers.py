"""Reuse memory for mini-batches: new pages would cost a third of the time of the work on them."""

import weakref

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from moco.recipe import DataSpec


class Slot:
    """The views of one mini-batch of N images, N x S x S x c each, and the images' indices: bytes, or bands as float32.

    S is another for small crops.

    For a GPU the memory is page-locked and copied on a separate stream, while a step runs.
    """

    def __init__(self, crops: list[Tensor], ids: Tensor, device: torch.device):
        self.device, self._crops, self._ids = device, crops, ids
        self.crops: list[UInt8[np.ndarray, "N S S 3"] | Float32[np.ndarray, "N S S c"]] = [one.numpy() for one in crops]
        self.ids: Int64[np.ndarray, " N"] = ids.numpy()
        self._copied = torch.cuda.Event() if ids.is_pinned() else None
        self._stream = torch.cuda.Stream(device) if ids.is_pinned() else None

    @classmethod
    def empty(cls, count: int, data: DataSpec, device: torch.device) -> "Slot":
        pinned, dtype = device.type == "cuda", torch.uint8 if data.bands is None else torch.float32
        shapes = [(count, size, size, data.channels) for _, size in data.all_views]
        crops = [torch.empty(shape, dtype=dtype, pin_memory=pinned) for shape in shapes]
        return cls(crops, torch.empty(count, dtype=torch.int64, pin_memory=pinned), device)

    def wait(self) -> None:
        """Wait until the slot may be written to again."""
        if self._copied is not None:
            self._copied.synchronize()

    def to_device(self) -> tuple[list[UInt8[Tensor, "N 3 S S"] | Float32[Tensor, "N c S S"]], Int64[Tensor, " N"]]:
        """Views and indices on the device. The CPU does not wait for the copy."""
        if self._stream is None or self._copied is None:
            return [crops.to(self.device).permute(0, 3, 1, 2) for crops in self._crops], self._ids.to(self.device)
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            moved = [tensor.to(self.device, non_blocking=True) for tensor in (*self._crops, self._ids)]
            self._copied.record(self._stream)
        current.wait_stream(self._stream)
        for tensor in moved:
            tensor.record_stream(current)  # so that its memory is not used again while the step reads it
        return [crops.permute(0, 3, 1, 2) for crops in moved[:-1]], moved[-1]


class Ring:
    """Slots for as many mini-batches as are made at a time; the n-th takes slot n modulo their number."""

    def __init__(self, slots: int, count: int, data: DataSpec, device: torch.device):
        self._slots: list[Slot | None] = [None] * slots
        self._make = lambda: Slot.empty(count, data, device)

    def __getitem__(self, number: int) -> Slot:
        place = number % len(self._slots)
        slot = self._slots[place]
        if slot is None:  # made when first needed: a short run takes less memory
            slot = self._slots[place] = self._make()
        return slot


class BufferPool:
    """Float32 arrays whose memory is reused once no array or tensor refers to it."""

    LIMIT = 8  # most free buffers held for reuse

    def __init__(self) -> None:
        self._free: list[Float32[np.ndarray, ...]] = []

    def take(self, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
        """An uninitialized array."""
        fitting = [place for place, memory in enumerate(self._free) if memory.shape == shape]
        memory = self._free.pop(fitting[0]) if fitting else np.empty(shape, dtype=np.float32)
        array = memory.view()
        # torch.from_numpy holds `array`, not `memory`: it is finalized when the last tensor over it is gone
        weakref.finalize(array, self._release, memory).atexit = False
        return array

    def _release(self, memory: Float32[np.ndarray, "..."]) -> None:
        if len(self._free) < self.LIMIT:
            self._free.append(memory)
