"""The only file that calls torch.distributed. With one process, every collective function returns its input."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

TIMEOUT = timedelta(hours=2)  # of a collective operation
LONG_TIMEOUT = timedelta(days=365)  # of waiting for rank 0 in `main_works`
START_TIMEOUT = timedelta(minutes=15)  # until all ranks have started
FAILURE_TIMEOUT = timedelta(seconds=10)  # in which the first rank that failed must write why
STORE = "MOCO_STORE"  # variable: path of the file that the ranks of one machine share (moco/launch.py)


class RankError(RuntimeError):
    """Another rank has failed or ended. `kinds`: class names of the exception that it raised; empty: not known."""

    def __init__(self, message: str, kinds: tuple[str, ...] = ()):
        super().__init__(message)
        self.kinds = kinds


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def requested_ranks() -> int:
    """The number of ranks that the launcher has set (WORLD_SIZE); known before they join."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_main() -> bool:
    """Whether this process is rank 0, which alone writes and prints. Known before and after a `session` too."""
    if requested_ranks() == 1 or (dist.is_available() and dist.is_initialized()):
        return rank() == 0
    return int(os.environ["RANK"]) == 0


def is_restarted() -> bool:
    """Whether torchrun has restarted this process after a failure (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def session(device: torch.device) -> Iterator[torch.device]:
    """Join the other ranks while open. Yields this rank's device.

    Tensors on the host are sent by gloo, so that ranks can agree without waiting for a device; those on a GPU by NCCL.

    Raises:
        RankError: another rank has raised an exception or has ended.
    """
    if requested_ranks() == 1 or dist.is_initialized():
        yield device
        return
    if "RANK" not in os.environ:
        raise RankError(
            f"WORLD_SIZE={requested_ranks()} says that this is one of several ranks, but RANK is not set: start the "
            "ranks with torchrun, or unset WORLD_SIZE"
        )
    if device.type == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise RankError(
                f"rank {local} of this machine has no GPU: there are {there}. Start as many ranks as GPUs, or add "
                "--device cpu"
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
        barrier()  # wait: another rank may still fail
    except Exception as error:  # the group is not destroyed: that would wait for lost ranks
        first = _first(error, store)
        if first is error:
            raise
        raise first from error
    dist.destroy_process_group()


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """While open, what C++ prints to stdout goes to stderr: gloo of torch 2.8 reports its connections on stdout."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _meet() -> tuple[dist.Store, int, int]:
    """The store that the ranks share, this rank's number, and how many there are."""
    if STORE not in os.environ:
        return next(dist.rendezvous("env://", timeout=START_TIMEOUT))
    # of `launch`; a TCPStore would listen on every address of the machine. -1: keep the file: a process may join again
    store = dist.FileStore(os.environ[STORE], -1)
    store.set_timeout(START_TIMEOUT)
    return store, int(os.environ["RANK"]), requested_ranks()


def _first(error: Exception, store: dist.Store) -> Exception:
    """The first error of any rank: `error` itself, or a RankError that names it."""
    if _lost_another(error):
        error = RankError(f"another rank has gone: read its last messages, then run the same command again ({error})")
    try:
        if store.add("failed", 1) == 1:
            store.set("failure", json.dumps([rank(), str(error), [kind.__name__ for kind in type(error).__mro__]]))
            return error
        store.wait(["failure"], FAILURE_TIMEOUT)
        number, message, kinds = json.loads(store.get("failure"))  # JSON, as nothing from a store may be unpickled
    except (RuntimeError, ValueError):  # the store's process has ended, or another program wrote to it
        return error
    return RankError(f"rank {number} failed: {message}", tuple(kinds))


def _lost_another(error: Exception) -> bool:
    """Whether torch raised this error because another rank has ended.

    NCCL and the store have exception classes for that. gloo has none, but its messages begin with a line of its source:
    "[.../gloo/transport/tcp/pair.cc:561] Connection closed by peer".
    """
    from_gloo = type(error) is RuntimeError and re.match(r"\[\S*\bgloo\b\S*:\d+\] ", str(error)) is not None
    return isinstance(error, dist.DistError) or from_gloo


def agree(value: int) -> int:
    """The largest `value` of all ranks. The hosts exchange it, without waiting for a device."""
    return agree_all(value)[0]


def agree_all(*values: int) -> list[int]:
    """The largest of each value over the ranks, in one exchange; see `agree`."""
    if world_size() == 1:
        return list(values)
    numbers = torch.tensor(values)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.tolist()


def barrier() -> None:
    """Wait on the host until all ranks have called this."""
    agree(0)


@contextmanager
def main_works() -> Iterator[None]:
    """While open, rank 0 may work alone for hours: the others wait without TIMEOUT; --patience ends a hung run."""
    group = dist.new_group(backend="gloo", timeout=LONG_TIMEOUT) if world_size() > 1 else None
    yield
    if isinstance(group, dist.ProcessGroup):
        dist.barrier(group)
        dist.destroy_process_group(group)


def share(content: bytes) -> bytes:
    """Rank 0's `content`, on every rank."""
    if world_size() == 1 or not (size := agree(len(content) if rank() == 0 else 0)):
        return content if rank() == 0 else b""
    received = torch.frombuffer(bytearray(content), dtype=torch.uint8) if rank() == 0 else torch.empty(size).byte()
    dist.broadcast(received, src=0)
    return received.numpy().tobytes()


def everyone(text: str) -> list[str]:
    """The `text` of each rank, on every rank."""
    if world_size() == 1:
        return [text]
    content = text.encode()
    row = torch.frombuffer(bytearray(content.ljust(agree(len(content)) + 1)), dtype=torch.uint8)
    rows, lengths = gather(row[None]), gather(torch.tensor([len(content)]))
    return [text[:length].numpy().tobytes().decode() for text, length in zip(rows, lengths.tolist(), strict=True)]


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of `x` over the ranks, without gradient."""
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
        dist.all_reduce(grad)  # every rank used each row: sum its gradients
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
    order = shuffled_order(len(x) * world_size(), rng)
    return _permuted(x, order), order


def shuffled_order(count: int, rng: torch.Generator) -> Int[Tensor, " count"]:
    """The order in which Shuffling BN deals a global mini-batch of `count` images: row order[i] becomes row i."""
    return torch.randperm(count, generator=rng)  # on the host: decides who sends how much


def unshuffle(x: Float[Tensor, "N ..."], order: Int[Tensor, "WN"]) -> Float[Tensor, "N ..."]:
    """Undo `shuffle`: row i of the result belongs to sample i of this rank again."""
    return _permuted(x, order.argsort())


def _permuted(x: Tensor, order: Tensor) -> Tensor:
    return _rows(x, order) if world_size() == 1 else _Permute.apply(x, order)  # pyright: ignore[reportReturnType]


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.order = order
        return _exchange(x, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _exchange(grads[0], ctx.order.argsort()), None


def _exchange(x: Tensor, order: Tensor) -> Tensor:
    """Row order[i] of the global mini-batch becomes row i: send each row to the rank that needs it."""
    wanted = order.view(world_size(), -1)  # by each rank: W x N
    owner = wanted // len(x)
    out = [wanted[other][owner[other] == rank()] % len(x) for other in range(world_size())]
    sent = _rows(x, torch.cat(out))
    arrived, sizes = torch.empty_like(sent), owner[rank()].bincount(minlength=world_size()).tolist()
    dist.all_to_all_single(_stored(arrived), _stored(sent), sizes, [len(rows) for rows in out])
    return _rows(arrived, owner[rank()].argsort(stable=True).argsort())  # they are sorted by sender


def _stored(x: Tensor) -> Tensor:
    """`x` with its dimensions in memory order: N x H x W x C where it is channels-last."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else x


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x[index], without a change of memory format."""
    rows = (stored := _stored(x)).index_select(0, index.to(x.device, non_blocking=True))
    return rows if stored is x else rows.permute(0, 3, 1, 2)
