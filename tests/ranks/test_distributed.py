"""Two and four gloo processes: gather, shuffle, and equal queues."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from moco.distributed import gather, rank, shuffle, unshuffle, world_size
from moco.method import Queue


def on_ranks(worker, world: int, tmp_path) -> list:
    """What `worker(rank)` returns on each of `world` gloo ranks."""
    mp.spawn(_run, args=(worker, world, str(tmp_path)), nprocs=world)
    return [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(world)]


def _run(r, worker, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=r, world_size=world)
    try:
        torch.save(worker(r), f"{folder}/{r}.pt")
    finally:
        dist.destroy_process_group()


def _gathered(r):
    x = torch.full((2, 3), float(r), requires_grad=True)
    y = gather(x)
    (y * (r + 1)).sum().backward()
    return y.detach(), x.grad


@pytest.mark.parametrize("world", [2, 4])
def test_gather_concatenates_in_rank_order_and_its_gradient_is_summed(tmp_path, world):
    results = on_ranks(_gathered, world, tmp_path)
    expected = torch.arange(world).repeat_interleave(2)[:, None].expand(-1, 3).float()
    for y, grad in results:
        assert torch.equal(y, expected)
        assert torch.equal(grad, torch.full((2, 3), float(sum(range(1, world + 1)))))


def _shuffled(r):
    x = torch.arange(4.0)[:, None] + 100 * r
    hand, order = shuffle(x, torch.Generator().manual_seed(5))
    return hand, order, unshuffle(hand, order)


@pytest.mark.parametrize("world", [2, 4])
def test_shuffling_deals_every_row_once_and_unshuffling_brings_it_home(tmp_path, world):
    results = on_ranks(_shuffled, world, tmp_path)
    dealt = torch.cat([hand for hand, _, _ in results]).flatten()
    everyone = torch.cat([torch.arange(4.0) + 100 * r for r in range(world)])
    assert torch.equal(dealt.sort().values, everyone)
    assert not torch.equal(dealt, everyone)
    for r, (_, _, home) in enumerate(results):
        assert torch.equal(home, torch.arange(4.0)[:, None] + 100 * r)


def _queued(r):
    torch.manual_seed(0)
    queue = Queue(10, 2)
    for step in range(5):
        queue.update(torch.full((3, 2), float(10 * step + r)), torch.arange(3) + 3 * r, step)
    return queue.keys, queue.ids


def test_queues_of_all_ranks_stay_equal(tmp_path):
    (keys, ids), (other_keys, other_ids) = on_ranks(_queued, 2, tmp_path)
    assert torch.equal(keys, other_keys)
    assert torch.equal(ids, other_ids)
    assert {40.0, 41.0} <= set(keys[:, 0].tolist())


def test_one_process_gathers_nothing():
    x = torch.randn(3, 2)
    assert gather(x) is x
    assert (rank(), world_size()) == (0, 1)
