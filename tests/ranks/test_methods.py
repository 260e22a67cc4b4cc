"""Every mechanism on several ranks is what it is in one process with as many BN groups, in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from run_ranks import on_ranks
from torch import nn

from moco.distributed import mean_over_ranks, rank, world_size
from moco.method import NCE, Batch, CachedContrast, Contrast, MemoryBank, MomentumEncoder, Owners, Queue, synchronized
from moco.schedule import Constant
from moco.train.checkpoint import Clock, TrainState
from moco.train.ddp import wrap
from moco.train.loop import train
from moco.train.rank_sync import average_statistics

N, IMAGES = 16, 40


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def queue(groups: int) -> Contrast:
    f = network()
    return Contrast(f, MomentumEncoder(f), Queue(24, 4), bn_groups=groups)


def symmetric_queue(groups: int) -> Contrast:
    f = network()
    return Contrast(f, MomentumEncoder(f), Queue(4 * N, 4), bn_groups=groups, symmetric=True)


def end_to_end(groups: int) -> Contrast:
    f = network()
    return Contrast(f, f, Batch(), bn_groups=groups)


def two_encoders(groups: int) -> Contrast:
    return Contrast(network(), network(), Batch(), bn_groups=groups)


def unshuffled(groups: int) -> Contrast:
    f = network()
    return Contrast(f, MomentumEncoder(f), Batch(), bn_groups=groups, shuffle_bn=False)


def bank(groups: int) -> Contrast:
    return Contrast(network(), None, MemoryBank(IMAGES, 24, 4), bn_groups=groups, shuffle_bn=False)


def nce_bank(groups: int) -> Contrast:
    dictionary = MemoryBank(IMAGES, 24, 4, shared=False)
    return Contrast(network(), None, dictionary, bn_groups=groups, shuffle_bn=False, loss=NCE(IMAGES))


def v3(groups: int) -> Contrast:
    """MoCo v3's BN is over all ranks: in one process, that of the joined mini-batch."""
    f = network()
    predictor = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    contrast = Contrast(
        f, MomentumEncoder(f), Batch(), predictor=predictor, symmetric=True, shuffle_bn=False, loss_scale=0.4
    )
    return synchronized(contrast)


def further_views(groups: int) -> Contrast:
    """Keys that are the mean of two views, two small crops, and pairs of images that are no negatives."""
    f, owned = network(), Queue(24, 4)
    owned.owners = Owners(torch.arange(IMAGES) // 2)
    return Contrast(f, MomentumEncoder(f), owned, bn_groups=groups, key_views=2)


MECHANISMS: list[Callable[[int], Contrast]] = [
    queue, symmetric_queue, end_to_end, two_encoders, unshuffled, bank, nce_bank, v3, further_views,
]  # fmt: skip


def batches(steps: int, dtype: torch.dtype, device: str = "cpu", sizes: tuple[int, ...] = (8, 8)):
    """Mini-batches, of which each rank takes its share. Some images come twice in one, on two ranks too."""
    for step in range(steps):
        rng = torch.Generator().manual_seed(step)
        views = [torch.randn(N, 3, size, size, generator=rng, dtype=dtype) for size in sizes]
        ids = torch.randint(IMAGES, (N,), generator=rng)
        share = slice(rank() * N // world_size(), (rank() + 1) * N // world_size())
        yield [view[share].to(device) for view in views], ids[share].to(device)


def trained(
    make: Callable[[int], Contrast],
    groups: int,
    *,
    steps: int = 3,
    seed: int = 3,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> dict:
    """What Algorithm 1 comes to on this rank: losses, gradients of the last step, weights, statistics, dictionary."""
    torch.manual_seed(seed)
    contrast = make(groups // world_size()).to(device, dtype).train()
    optimizer = torch.optim.SGD([p for p in contrast.parameters() if p.requires_grad], lr=0.0, momentum=0.9)
    state = TrainState(contrast, optimizer, Clock(steps, steps))
    sizes = (8, 8) if contrast.key_views == 1 else (8, 8, 8, 6, 6)  # [pixels] of the views
    losses: list[torch.Tensor] = []
    train(
        wrap(contrast), state, batches(steps, dtype, device, sizes), lr=Constant(0.1),
        m=Constant(0.9), seed=0, after_step=lambda _, metrics: losses.append(mean_over_ranks(metrics["loss"])),
    )  # fmt: skip
    gradients = {f"grad.{name}": p.grad for name, p in contrast.named_parameters() if p.grad is not None}
    with average_statistics(contrast):
        tensors = {name: x.clone() for name, x in contrast.state_dict().items() if "num_batches" not in name}
    return {"losses": torch.stack(losses)} | gradients | tensors


def as_a_set(tensors: dict) -> dict:
    """The queue in an order of its own: with a symmetric loss, ranks enqueue the keys of both directions in turn."""
    order = tensors["dictionary.keys"][:, 0].argsort()
    return tensors | {f"dictionary.{name}": tensors[f"dictionary.{name}"][order] for name in ("keys", "ids", "born")}


@pytest.mark.parametrize("make", MECHANISMS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("world", "groups"), [(2, 2), (4, 4), (2, 4)])
def test_ranks_compute_what_one_process_does_with_their_bn_groups(tmp_path, make, world, groups):
    expected, results = trained(make, groups), on_ranks(lambda _: trained(make, groups), world, tmp_path)
    if make is symmetric_queue:
        expected, results = as_a_set(expected), [as_a_set(result) for result in results]
    assert any(name.startswith("grad.") for name in expected)
    for result in results:
        assert result.keys() == expected.keys()
        for name, x in expected.items():
            torch.testing.assert_close(result[name], x, rtol=1e-9, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("make", MECHANISMS, ids=lambda make: make.__name__)
def test_all_ranks_end_with_the_same_bits_although_their_seeds_differ(tmp_path, make):
    """After 20 steps in float32: weights, momentum encoder, queue or bank, and NCE's Z."""
    ids = torch.cat([ids for _, ids in batches(20, torch.float32)])
    assert any(len(some.unique()) < N for some in ids.split(N)), "an image is on two ranks at once"
    first, *others = on_ranks(lambda r: trained(make, 4, steps=20, seed=r, dtype=torch.float32), 4, tmp_path)
    for other in others:
        for name, x in first.items():
            assert torch.equal(other[name], x), name


@pytest.mark.parametrize("make", [end_to_end, two_encoders, unshuffled], ids=lambda make: make.__name__)
def test_a_mini_batch_in_pieces_on_ranks_has_the_gradient_of_the_whole_in_one_process(tmp_path, make, monkeypatch):
    expected = trained(make, 4)
    monkeypatch.setitem(globals(), "Contrast", partial(CachedContrast, pieces=2))
    for result in on_ranks(lambda _: trained(make, 4), 2, tmp_path):
        for name, x in expected.items():
            if "running" not in name:  # where queries and keys share an encoder, they come to it in another order
                torch.testing.assert_close(result[name], x, rtol=1e-9, atol=1e-11)


def test_the_comparison_detects_keys_whose_gradient_stays_on_their_rank(tmp_path, monkeypatch):
    """A planted fault: the usual gather, which does not bring the other ranks' gradients home."""
    expected = trained(end_to_end, 2)

    def gather_without_gradient(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            rows = honest(x)
        each = rows.shape[0] // world_size()
        return torch.cat([rows[: rank() * each], x, rows[(rank() + 1) * each :]])

    from moco.method import dictionaries

    honest = dictionaries.gather
    monkeypatch.setattr(dictionaries, "gather", gather_without_gradient)
    result, _ = on_ranks(lambda _: trained(end_to_end, 2), 2, tmp_path)
    name = "grad.encoder.8.weight"
    assert not torch.allclose(result[name], expected[name], rtol=1e-3)


def test_the_loss_and_the_statistics_are_those_of_the_shuffled_groups(tmp_path):
    """Against the equations, on two ranks: the keys of a rank are normalized with whom they were dealt out to."""
    layer = nn.BatchNorm1d(4, affine=False).double()
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    hands = [x[hand] for hand in order.view(2, 4)]
    expected = torch.empty_like(x)  # 8 x 4
    for hand, rows in zip(order.view(2, 4), hands, strict=True):
        whitened = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + layer.eps).sqrt()
        expected[hand] = nn.functional.normalize(whitened, dim=1)

    def keys(number: int) -> torch.Tensor:
        contrast = Contrast(nn.Identity(), MomentumEncoder(nn.Sequential(nn.Flatten(), layer)), Batch())
        share = x[4 * number : 4 * number + 4, :, None, None]
        return contrast.encode_keys(share, torch.Generator().manual_seed(2))

    torch.testing.assert_close(torch.cat(on_ranks(keys, 2, tmp_path)), expected)
