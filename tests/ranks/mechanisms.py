"""Every mechanism with a tiny network, and what Algorithm 1 comes to with it on some ranks."""

from collections.abc import Callable

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from moco.distributed import mean_over_ranks, rank, world_size
from moco.method import NCE, Batch, Contrast, MemoryBank, MomentumEncoder, Owners, Queue, synchronized
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
    f.set_submodule("4", BatchNormAct2d(6, act_layer=nn.SiLU))
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
