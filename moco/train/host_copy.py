"""Copy a training state into the host's memory, so that a checkpoint can be written while training goes on."""

import copy
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from moco.train.checkpoint import CopiedState, TrainState


class HostCopy:
    """Buffers for one copy of a state. The next copy uses them again, so it allocates nothing.

    Tensors that share memory share a buffer, and each keeps its strides: the file has the same bytes as one that is
    written from the state itself.
    """

    def __init__(self) -> None:
        self._buffers: dict[Hashable, Tensor] = {}

    @property
    def nbytes(self) -> int:
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers.values())

    @torch.no_grad()
    def take(self, state: TrainState, statistics: dict[str, Tensor]) -> tuple[CopiedState, dict[str, Tensor]]:
        """Copy the state, and the statistics of all ranks. The former copy is overwritten."""
        before, self._buffers = self._buffers, {}
        content = self._copied({"state": state.state_dict(), "statistics": statistics}, (), before, {})
        if torch.cuda.is_available() and any(buffer.is_pinned() for buffer in self._buffers.values()):
            torch.cuda.current_stream().synchronize()
        return CopiedState(copy.copy(state.clock), content["state"]), content["statistics"]

    def _copied(self, node: Any, path: tuple, before: dict[Hashable, Tensor], seen: dict[Hashable, Tensor]) -> Any:
        if isinstance(node, Tensor):
            place = node.data_ptr(), tuple(node.shape), node.stride(), node.dtype
            if node.numel() > 0 and place in seen:
                return seen[place].detach()
            seen[place] = self._filled(node, path, before.get(path))
            return seen[place]
        if isinstance(node, dict):
            same_type = copy.copy(node)  # an OrderedDict of a module has attributes
            same_type.update({key: self._copied(value, (*path, key), before, seen) for key, value in node.items()})
            return same_type
        if type(node) in (list, tuple):
            return type(node)(self._copied(value, (*path, i), before, seen) for i, value in enumerate(node))
        return copy.copy(node)

    def _filled(self, x: Tensor, path: tuple, buffer: Tensor | None) -> Tensor:
        """`x` in `buffer`, or in a new one where that does not fit."""
        if buffer is None or (buffer.shape, buffer.stride(), buffer.dtype) != (x.shape, x.stride(), x.dtype):
            buffer = torch.empty_like(x, device="cpu", pin_memory=x.is_cuda, requires_grad=False)
        buffer.copy_(x, non_blocking=x.is_cuda)
        self._buffers[path] = buffer
        return buffer
