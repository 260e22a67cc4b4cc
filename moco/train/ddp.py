"""DistributedDataParallel as training needs it: gradients are averaged once a step, buffers are sent once a run."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from moco.distributed import world_size


def wrap(model: nn.Module, *, skips: bool = False) -> nn.Module:
    """`model` in DDP: rank 0's weights and buffers are copied to all ranks once, and gradients are averaged.

    By default DDP sends the buffers in every forward pass. The queue alone has 32 MiB, and every rank updates it alike.

    Args:
        skips: a backward pass may leave parameters without a gradient, not the same ones on each rank. A rank without a
            gradient counts as 0 in the mean; a parameter that no rank has a gradient for gets none, as in one process.
            DDP then searches the graph in each step.
    """
    if world_size() == 1:
        return model
    # Else DDP changes the order of gradients in its buffers after the first step of a process. With more than two ranks
    # gloo adds them in that order, so a resumed run would have other bits than an uninterrupted one.
    skips = skips or world_size() > 2
    model = _WithUnused(model) if skips else model
    ddp = partial(nn.parallel.DistributedDataParallel, find_unused_parameters=skips)
    if "forward_sync_buffers" in inspect.signature(ddp).parameters:
        return ddp(model, forward_sync_buffers=False)
    wrapped = ddp(model)  # older torch: with broadcast_buffers=False it would skip the first broadcast too
    wrapped.broadcast_buffers = False
    return wrapped


class _WithUnused(nn.Module):
    """`model` with a parameter that nothing uses: DDP warns if it searches for unused parameters and finds none."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, *args: Any) -> Any:
        return self.model(*args)


def skip_gradient_sync(model: nn.Module) -> AbstractContextManager[None]:
    """A context in which a DDP model adds up gradients without averaging; the next backward pass outside averages."""
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()
