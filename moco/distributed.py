"""The only file that calls torch.distributed. With one process, every function is the identity."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)  # a row was used on every rank: sum what each rank says of it
        return grad.chunk(world_size())[rank()]


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks [W*N, ...], in rank order. Gradients flow back, summed, to the rank each row came from."""
    return x if world_size() == 1 else _Gather.apply(x)  # pyright: ignore[reportReturnType]


def shuffle(x: Float[Tensor, "N ..."], rng: torch.Generator) -> tuple[Float[Tensor, "N ..."], Int[Tensor, "WN"]]:
    """Deal the rows of the global mini-batch out to the ranks anew (Sec. 3.3).

    Args:
        x: this rank's rows.
        rng: a CPU generator at the same state on every rank.

    Returns:
        This rank's hand of N rows, and the order that `unshuffle` needs to take the rows home.
    """
    order = torch.randperm(len(x) * world_size(), generator=rng).to(x.device)
    return gather(x)[order.view(world_size(), -1)[rank()]], order


def unshuffle(x: Float[Tensor, "N ..."], order: Int[Tensor, "WN"]) -> Float[Tensor, "N ..."]:
    """Undo `shuffle`: row i of the result belongs to sample i of this rank again."""
    return gather(x)[order.argsort().view(world_size(), -1)[rank()]]


def unsynchronized(model: nn.Module) -> AbstractContextManager[None]:
    """A context in which a DDP model keeps its gradients to itself until the next backward outside."""
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()
