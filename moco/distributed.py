"""The only file that calls torch.distributed. With one process, every function is the identity."""

import inspect
import json
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

TIMEOUT = timedelta(hours=2)  # of a collective operation: rank 0 may evaluate for that long
START_TIMEOUT = timedelta(minutes=15)  # until all ranks have started
STORE = "MOCO_STORE"  # the variable with the path of the file at which the ranks of one machine meet (moco/launch.py)


class RankError(RuntimeError):
    """Another rank has failed, or has gone, and this one cannot go on without it.

    `kinds` are the names of the classes of what was raised there; empty when nobody can tell.
    """

    def __init__(self, message: str, kinds: tuple[str, ...] = ()):
        super().__init__(message)
        self.kinds = kinds


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def asked_ranks() -> int:
    """The number of ranks, as the launcher says (WORLD_SIZE), before they have joined."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_main() -> bool:
    """Whether this process writes and prints for all: rank 0, also before and after a `session`."""
    if asked_ranks() == 1 or (dist.is_available() and dist.is_initialized()):
        return rank() == 0
    return int(os.environ["RANK"]) == 0


def restarted() -> bool:
    """Whether torchrun has started this process again, after a failure (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def session(device: torch.device) -> Iterator[torch.device]:
    """Join the ranks that `launch`, torchrun or another has started, and leave them; gives this rank's own device.

    Tensors on the host go by gloo, so that ranks can agree without waiting for a device; those on a GPU by NCCL.

    Raises:
        RankError: another rank has failed: what leaves one rank as an exception leaves all others as this.
    """
    if asked_ranks() == 1 or dist.is_initialized():
        yield device
        return
    if "RANK" not in os.environ:
        raise RankError(
            f"WORLD_SIZE={asked_ranks()} says that this is one of several ranks, and RANK is not set: start them by "
            "torchrun, or unset WORLD_SIZE"
        )
    if device.type == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise RankError(
                f"rank {local} of this machine has no GPU, for there are {there}: start as many ranks, or --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    store, number, size = _meet()
    which = (store.add("sessions", 1) - 1) // size  # a process may join several times, one after the other
    store = dist.PrefixStore(f"session{which}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _stdout_to_stderr():
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=TIMEOUT)
    try:
        yield device
        barrier()  # no rank leaves while another may still fail
    except Exception as error:  # no clean-up of the group: it would wait for lost ranks
        first = _first(error, store)
        if first is error:
            raise
        raise first from error
    dist.destroy_process_group()


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """While open, what C++ prints on stdout goes to stderr: gloo of torch 2.8 says there who is connected."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _meet() -> tuple[dist.Store, int, int]:
    """The store that the ranks share, this rank's number, and how many there are.

    The ranks of `launch` share a file: a TCPStore would listen on every address of the machine. torchrun's have one.
    """
    if STORE not in os.environ:
        return next(dist.rendezvous("env://", timeout=START_TIMEOUT))
    store = dist.FileStore(os.environ[STORE], -1)  # -1: nobody removes the file, for a process may join again
    store.set_timeout(START_TIMEOUT)
    return store, int(os.environ["RANK"]), asked_ranks()


def _first(error: Exception, store: dist.Store) -> Exception:
    """The first error of any rank: `error` itself, or a RankError that names it."""
    if _lost_another(error):
        error = RankError(f"another rank has gone, look at what it said and run the same command again ({error})")
    try:
        if store.add("failed", 1) == 1:
            store.set("failure", json.dumps([rank(), str(error), [kind.__name__ for kind in type(error).__mro__]]))
            return error
        store.wait(["failure"], timedelta(seconds=10))
        number, message, kinds = json.loads(store.get("failure"))  # JSON: what stands in a store is never unpickled
    except (RuntimeError, ValueError):  # the store has gone with whoever held it, or holds what no rank of ours wrote
        return error
    return RankError(f"rank {number} failed: {message}", tuple(kinds))


def _lost_another(error: Exception) -> bool:
    """Whether this is how torch tells that another rank has gone.

    NCCL and the store have classes for it. gloo has none: its message begins with the line of its own source that threw
    it, "[.../gloo/transport/tcp/pair.cc:561] Connection closed by peer".
    """
    from_gloo = type(error) is RuntimeError and re.match(r"\[\S*\bgloo\b\S*:\d+\] ", str(error)) is not None
    return isinstance(error, dist.DistError) or from_gloo


def agree(value: int) -> int:
    """The largest `value` of all ranks. Exchanged between hosts: does not wait for a device."""
    return agree_all(value)[0]


def agree_all(*values: int) -> list[int]:
    """The largest of each value over the ranks, in one exchange; see `agree`."""
    if world_size() == 1:
        return list(values)
    numbers = torch.tensor(values)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.tolist()


def barrier() -> None:
    """Wait, on the host, until all ranks are here."""
    agree(0)


def share(content: bytes) -> bytes:
    """Rank 0's `content`, on every rank."""
    if world_size() == 1 or not (size := agree(len(content) if rank() == 0 else 0)):
        return content if rank() == 0 else b""
    held = torch.frombuffer(bytearray(content), dtype=torch.uint8) if rank() == 0 else torch.empty(size).byte()
    dist.broadcast(held, src=0)
    return held.numpy().tobytes()


def everyone(text: str) -> list[str]:
    """The `text` of each rank, on every rank."""
    if world_size() == 1:
        return [text]
    content = text.encode()
    row = torch.frombuffer(bytearray(content.ljust(agree(len(content)) + 1)), dtype=torch.uint8)
    rows, lengths = gather(row[None]), gather(torch.tensor([len(content)]))
    return [held[:length].numpy().tobytes().decode() for held, length in zip(rows, lengths.tolist(), strict=True)]


def mean(x: Tensor) -> Tensor:
    """The mean of `x` over the ranks. Takes no gradient."""
    if world_size() == 1:
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x.div_(world_size())


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)  # each rank's sum depends on this rank's `x`
        return grad


def total(x: Tensor) -> Tensor:
    """The sum of `x` over the ranks. Gradients flow back, summed over the ranks."""
    return x if world_size() == 1 else _Total.apply(x)  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows = x.new_empty(world_size() * len(x), *x.shape[1:])
        dist.all_gather(list(rows.chunk(world_size())), x.contiguous())
        return rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)  # a row was used on every rank: sum what each rank says of it
        return grad.chunk(world_size())[rank()]


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks [W*N, ...], in rank order. Gradients flow back, summed, to the rank each row came from."""
    return x if world_size() == 1 else _Gather.apply(x)  # pyright: ignore[reportReturnType]


def shuffle(x: Float[Tensor, "N ..."], rng: torch.Generator) -> tuple[Float[Tensor, "N ..."], Int[Tensor, "WN"]]:
    """Shuffle the rows of the global mini-batch across the ranks (Sec. 3.3). Gradients flow back.

    Args:
        x: this rank's rows.
        rng: a CPU generator at the same state on every rank.

    Returns:
        This rank's N rows after the shuffle, and the order that `unshuffle` needs to undo it.
    """
    order = torch.randperm(len(x) * world_size(), generator=rng)  # on the host, as it says who sends how much
    return _dealt(x, order), order


def unshuffle(x: Float[Tensor, "N ..."], order: Int[Tensor, "WN"]) -> Float[Tensor, "N ..."]:
    """Undo `shuffle`: row i of the result belongs to sample i of this rank again."""
    return _dealt(x, order.argsort())


def _dealt(x: Tensor, order: Tensor) -> Tensor:
    return _rows(x, order) if world_size() == 1 else _Deal.apply(x, order)  # pyright: ignore[reportReturnType]


class _Deal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.order = order
        return _exchange(x, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _exchange(grads[0], ctx.order.argsort()), None


def _exchange(x: Tensor, order: Tensor) -> Tensor:
    """Send every row to the one rank that needs it."""
    wanted = order.view(world_size(), -1)  # by each rank: W x N
    owner = wanted // len(x)
    out = [wanted[other][owner[other] == rank()] % len(x) for other in range(world_size())]
    sent = _rows(x, torch.cat(out))
    arrived, sizes = torch.empty_like(sent), owner[rank()].bincount(minlength=world_size()).tolist()
    dist.all_to_all_single(_stored(arrived), _stored(sent), sizes, [len(rows) for rows in out])
    return _rows(arrived, owner[rank()].argsort(stable=True).argsort())  # they came by sender


def _stored(x: Tensor) -> Tensor:
    """`x` with its dimensions in the order of its memory, where that is channels-last."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else x


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x[index], each row copied as it lies in memory."""
    rows = (stored := _stored(x)).index_select(0, index.to(x.device, non_blocking=True))
    return rows if stored is x else rows.permute(0, 3, 1, 2)


def wrap(model: nn.Module, *, skips: bool = False) -> nn.Module:
    """`model` with gradients that are the mean over the ranks, and rank 0's weights and buffers, taken over once.

    Buffers are not sent at every forward pass, as DDP does by default: the queue alone has 32 MiB, and stays equal on
    all ranks by itself.

    Args:
        skips: a backward pass may leave parameters without a gradient, others on each rank. What a rank skips counts as
            0 in the mean; what all skip has no gradient, as in one process. The graph is searched at each step.
    """
    if world_size() == 1:
        return model
    model = _WithUnused(model) if skips else model
    ddp = partial(nn.parallel.DistributedDataParallel, find_unused_parameters=skips)
    if "forward_sync_buffers" in inspect.signature(ddp).parameters:
        return ddp(model, forward_sync_buffers=False)
    wrapped = ddp(model)  # older torch; there, broadcast_buffers=False would also leave out the first broadcast
    wrapped.broadcast_buffers = False
    return wrapped


class _WithUnused(nn.Module):
    """`model` with a parameter that nothing uses: DDP warns when it is told to look for some and finds none."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, *args: Any) -> Any:
        return self.model(*args)


def unsynchronized(model: nn.Module) -> AbstractContextManager[None]:
    """A context in which a DDP model keeps its gradients to itself until the next backward outside."""
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()
