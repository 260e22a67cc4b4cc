"""Communication of two ranks in a step, over gloo on one machine: shuffled images and gathered keys."""

import multiprocessing
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.measure import Result, Row, Work, interleaved, result
from moco.distributed import gather, shuffle, unshuffle

RANKS, DIM = 2, 128
SHUFFLES, GATHERS = 20, 400  # calls per turn; fixed, because all ranks must make the same calls


def usual_gather(x: Tensor) -> Tensor:
    """The rows of all ranks."""
    rows = [torch.ones_like(x) for _ in range(RANKS)]
    dist.all_gather(rows, x)
    return torch.cat(rows)


def usual_shuffle(x: Tensor, k: Tensor) -> Tensor:
    """Send all images to all ranks, take the order from rank 0, and unshuffle the keys."""
    gathered = usual_gather(x)
    order = torch.randperm(len(gathered))
    dist.broadcast(order, src=0)
    shuffled = gathered[order.view(RANKS, -1)[dist.get_rank()]]
    assert shuffled.shape == x.shape
    inverse = torch.argsort(order)
    return usual_gather(k)[inverse.view(RANKS, -1)[dist.get_rank()]]


def our_shuffle(x: Tensor, k: Tensor) -> Tensor:
    _, order = shuffle(x, torch.Generator().manual_seed(0))
    return unshuffle(k, order)


def run(rank: int, rendezvous: Path, shape: tuple[int, ...], rounds: int) -> dict[str, list[float]]:
    """The times of one rank, for images of this shape and their keys."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=rank, world_size=RANKS)
    x, k = torch.randn(shape), torch.randn(shape[0], DIM)
    ours = x.contiguous(memory_format=torch.channels_last)
    shuffles: dict[str, Work] = {
        "shuffle": partial(our_shuffle, ours, k), "usual shuffle": partial(usual_shuffle, x, k), "copy": x.clone,
    }  # fmt: skip
    gathers: dict[str, Work] = {
        "gather": partial(gather, k), "usual gather": partial(usual_gather, k), "copied keys": k.clone,
    }  # fmt: skip
    times = interleaved(shuffles, rounds=rounds, repeat=SHUFFLES) | interleaved(gathers, rounds=rounds, repeat=GATHERS)
    dist.destroy_process_group()
    return times


def ranks(shape: tuple[int, ...], rounds: int) -> Iterator[Result]:
    """Total CPU time of both ranks; waiting takes no CPU time."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(RANKS) as pool:
        rendezvous = Path(folder, "rendezvous")
        found = pool.starmap(run, [(rank, rendezvous, shape, rounds) for rank in range(RANKS)], chunksize=1)
    times = {name: np.sum([one[name] for one in found], axis=0).tolist() for name in found[0]}
    size = shape[-1]
    yield result(
        f"ranks/{size}/shuffle", times["shuffle"], times["usual shuffle"], lower_bound=times["copy"],
        against=f"all images of {shape[0]} a rank to all ranks, order broadcast; lower bound: a copy of a rank's own",
    )  # fmt: skip
    yield result(
        f"ranks/{size}/gather", times["gather"], times["usual gather"], lower_bound=times["copied keys"],
        against=f"all_gather, concatenation, {shape[0]} keys a rank; lower bound: a copy of a rank's own",
    )  # fmt: skip


ROWS = [
    Row("ranks/32", partial(ranks, (128, 3, 32, 32))),
    Row("ranks/224", partial(ranks, (16, 3, 224, 224)), slow=True),
]
