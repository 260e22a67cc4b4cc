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
        tensors: dict[Hashable, tuple[Tensor, Tensor]] = {}  # by place in memory: each, and its buffer
        content = self._with_buffers({"state": state.state_dict(), "statistics": statistics}, (), before, tensors)
        if tensors:
            sources, buffers = zip(*tensors.values(), strict=True)
            on_gpu = any(x.is_cuda for x in sources)
            torch._foreach_copy_(buffers, sources, non_blocking=on_gpu)
            if on_gpu:
                torch.cuda.current_stream().synchronize()
        return CopiedState(copy.copy(state.clock), content["state"]), content["statistics"]

    def _with_buffers(
        self, node: Any, path: tuple, before: dict[Hashable, Tensor], tensors: dict[Hashable, tuple[Tensor, Tensor]]
    ) -> Any:
        """A copy of `node` with a buffer in place of each tensor. Fills `tensors`."""
        if isinstance(node, Tensor):
            place = node.data_ptr() or path, tuple(node.shape), node.stride(), node.dtype
            if place in tensors:
                return tensors[place][1].detach()
            buffer = self._buffers[path] = _buffer_for(node, before.get(path))
            tensors[place] = node, buffer
            return buffer
        if isinstance(node, dict):
            same_type = copy.copy(node)  # an OrderedDict of a module has attributes
            for key, value in node.items():
                same_type[key] = self._with_buffers(value, (*path, key), before, tensors)
            return same_type
        if type(node) in (list, tuple):
            return type(node)(self._with_buffers(value, (*path, i), before, tensors) for i, value in enumerate(node))
        return copy.copy(node)


def _buffer_for(x: Tensor, buffer: Tensor | None) -> Tensor:
    """`buffer` if `x` fits into it, else a new one. For a tensor of a GPU, pinned memory."""
    if buffer is not None and (buffer.shape, buffer.stride(), buffer.dtype) == (x.shape, x.stride(), x.dtype):
        return buffer
    return torch.empty_like(x, device="cpu", pin_memory=x.is_cuda, requires_grad=False)
