"""Several gloo processes: how they meet, what they tell each other, and how they end."""

import os
import pickle
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist
from run_ranks import Ranks, on_ranks
from torch import nn

from moco.distributed import (
    STORE,
    RankError,
    agree,
    agree_all,
    barrier,
    everyone,
    gather,
    mean_over_ranks,
    on_main,
    rank,
    session,
    share,
    shuffle,
    unshuffle,
    world_size,
)
from moco.method import Queue
from moco.train.ddp import skip_gradient_sync, wrap

CPU = torch.device("cpu")


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
def test_shuffling_uses_every_row_once_and_unshuffling_restores_the_order(tmp_path, world):
    results = on_ranks(_shuffled, world, tmp_path)
    dealt = torch.cat([hand for hand, _, _ in results]).flatten()
    everyone = torch.cat([torch.arange(4.0) + 100 * r for r in range(world)])
    assert torch.equal(dealt.sort().values, everyone)
    assert not torch.equal(dealt, everyone)
    for r, (_, _, home) in enumerate(results):
        assert torch.equal(home, torch.arange(4.0)[:, None] + 100 * r)


def _exchanged(r):
    every = torch.arange(2 * 4 * 3 * 5 * 5, dtype=torch.float64).view(8, 3, 5, 5)
    x = every[4 * r : 4 * r + 4].contiguous(memory_format=torch.channels_last).requires_grad_()
    hand, order = shuffle(x, torch.Generator().manual_seed(5))
    (hand * (order.view(2, 4)[r] + 1)[:, None, None, None]).sum().backward()
    return hand.detach(), order, x.grad


def test_shuffled_images_stay_channels_last_and_gradients_return_to_their_rank(tmp_path):
    every = torch.arange(2 * 4 * 3 * 5 * 5, dtype=torch.float64).view(8, 3, 5, 5)
    for r, (hand, order, grad) in enumerate(on_ranks(_exchanged, 2, tmp_path)):
        assert torch.equal(hand, every[order.view(2, 4)[r]])
        assert hand.is_contiguous(memory_format=torch.channels_last)
        own = torch.arange(4 * r, 4 * r + 4) + 1  # what image i was multiplied with, wherever it went
        assert torch.equal(grad, own[:, None, None, None].expand(4, 3, 5, 5).to(grad.dtype))


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


class _Queued(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.queue = nn.Linear(2, 2), Queue(5, 2)

    def forward(self, x):
        return self.layer(x).sum() + self.queue.keys.sum()


def _come_apart(r):
    torch.manual_seed(r)
    net = _Queued()
    before, model = net.queue.keys.clone(), wrap(net)
    start = net.queue.keys.clone()
    net.queue.keys.add_(r)
    for _ in range(2):
        model(torch.ones(1, 2)).backward()
    return before, start, net.queue.keys, net.layer.weight


def test_buffers_are_copied_from_rank_0_once_and_not_in_every_step(tmp_path):
    (before_0, start_0, end_0, w_0), (before_1, start_1, end_1, w_1) = on_ranks(_come_apart, 2, tmp_path)
    assert not torch.equal(before_0, before_1)
    assert torch.equal(start_0, start_1)
    assert torch.equal(end_1, end_0 + 1)
    assert torch.equal(w_0, w_1)


class _Skipping(nn.Module):
    """Rank 0 goes through `first`, rank 1 through `second`, nobody through `never`."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.never = (nn.Linear(2, 1, bias=False) for _ in range(3))

    def forward(self, x):
        return (self.second if rank() else self.first)(x).sum()


def _skip(r):
    model = wrap(net := _Skipping(), skips=True)
    for _ in range(2):
        net.zero_grad(set_to_none=True)
        with skip_gradient_sync(model):
            model(torch.tensor([[1.0 + r, 2.0]])).backward()
        model(torch.tensor([[1.0 + r, 2.0]])).backward()
    return net.first.weight.grad, net.second.weight.grad, net.never.weight.grad


def test_gradients_of_layers_that_a_rank_skips_are_means_over_the_ranks_too(tmp_path, capfd):
    for first, second, never in on_ranks(_skip, 2, tmp_path):
        assert first.tolist() == [[1.0, 2.0]]  # twice [1, 2] on rank 0, nothing on rank 1
        assert second.tolist() == [[2.0, 2.0]]  # twice [2, 2] on rank 1
        assert never is None  # as in one process: the optimizer leaves it alone
    assert "unused" not in capfd.readouterr().err


def _skip_nothing(r):
    net = nn.Linear(2, 1)
    model = wrap(net, skips=True)
    model(torch.ones(1, 2)).sum().backward()
    return net.weight.grad


def test_a_module_that_may_skip_layers_but_does_not_gives_no_warning(tmp_path, capfd):
    on_ranks(_skip_nothing, 2, tmp_path)
    assert "unused" not in capfd.readouterr().err


def _met(r):
    texts = ["", "é" * 3, "x" * 70_000]
    return {
        "largest": torch.tensor(agree([3, 7, 5][r])),
        "largest of each": torch.tensor(agree_all(r, -r)),
        "shared": share(b"of 0" if r == 0 else b"another").decode() + share(b"").decode(),
        "texts": everyone(texts[r]) == texts,
        "mean": mean_over_ranks(torch.tensor([float(r), 6.0])),
    }


def test_ranks_agree_share_and_average(tmp_path):
    for met in on_ranks(_met, 3, tmp_path):
        assert met["largest"] == 7
        assert met["largest of each"].tolist() == [2, 0]
        assert met["shared"] == "of 0"
        assert met["texts"] is True
        assert met["mean"].tolist() == [1.0, 6.0]


def test_with_one_process_every_function_is_the_identity():
    x = torch.randn(3, 2)
    net = nn.Linear(2, 2)
    assert gather(x) is x
    assert mean_over_ranks(x) is x
    assert wrap(net) is net
    assert agree_all(3, 4) == [3, 4]
    assert (agree(3), share(b"a"), everyone("b")) == (3, b"a", ["b"])
    assert (rank(), world_size(), on_main()) == (0, 1, True)
    with session(CPU) as device:
        assert device == CPU
        assert world_size() == 1


def _twice(r):
    for _ in range(2):
        with session(CPU) as device:
            assert (rank(), world_size(), on_main(), device.type) == (r, 2, r == 0, "cpu")
            assert agree(r) == 1
        assert (rank(), world_size(), on_main()) == (0, 1, r == 0)


def test_a_process_can_join_and_leave_its_ranks_several_times():
    assert Ranks(_twice, 2).wait() == [0, 0]


def _one_fails(r):
    def meet():
        with session(CPU):
            if r == 1:
                raise FileNotFoundError("no such thing")
            barrier()

    with pytest.raises(FileNotFoundError if r == 1 else RankError) as caught:
        meet()
    assert str(caught.value) == ("no such thing" if r == 1 else "rank 1 failed: no such thing")
    assert r == 1 or {"FileNotFoundError", "OSError"} <= set(caught.value.kinds)


def test_an_error_on_one_rank_is_raised_on_the_others():
    assert Ranks(_one_fails, 3).wait(60) == [0, 0, 0]


def _one_plants_a_pickle(r):
    class Planted:
        def __reduce__(self):
            return os._exit, (66,)

    def meet():
        with session(CPU):
            store = dist.PrefixStore("session0", dist.FileStore(os.environ[STORE], -1))
            if r == 1:
                for key in ("failed", "failure"):
                    store.set(key, b"1" if key == "failed" else pickle.dumps(Planted()))
            barrier()
            raise FileNotFoundError("no such thing")

    with pytest.raises(FileNotFoundError, match="no such thing"):
        meet()


def test_a_pickle_in_the_store_is_not_executed():
    assert Ranks(_one_plants_a_pickle, 2).wait(60) == [0, 0]


def _one_misses_a_file_in_a_folder_called_gloo(r):
    def meet():
        with session(CPU):
            if r == 1:
                raise error
            barrier()

    error = RuntimeError("cannot read [/data/gloo/7.png]")
    with pytest.raises(RuntimeError) as caught:
        meet()
    assert str(caught.value) == ("" if r == 1 else "rank 1 failed: ") + str(error)


def test_an_error_that_mentions_gloo_does_not_count_as_a_lost_rank():
    assert Ranks(_one_misses_a_file_in_a_folder_called_gloo, 2).wait(60) == [0, 0]


def _one_is_killed(r):
    try:
        with session(CPU):
            if r == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            barrier()
    except RankError as error:
        print(error.kinds, error, file=sys.stderr)
        raise SystemExit(9) from None


def test_a_rank_that_is_killed_ends_the_others(capfd):
    start = time.monotonic()
    assert Ranks(_one_is_killed, 3).wait(60) == [9, -signal.SIGKILL, 9]
    assert time.monotonic() - start < 20
    lines = capfd.readouterr().err.splitlines()
    assert sum("()" in line and "another rank has gone" in line for line in lines) == 1
    assert sum("'RankError'" in line and "failed: another rank has gone" in line for line in lines) == 1
