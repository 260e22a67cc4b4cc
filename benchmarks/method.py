"""The loss over the queue, the momentum update, the optimizers."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

from benchmarks import memory
from benchmarks.measure import Result, Row, Work, compare, interleaved, result
from benchmarks.reference.lars import LARS
from benchmarks.reference.queue import MoCo, loss_of
from moco.encoders.vit import VITS, ViT
from moco.method import LookUp, MomentumEncoder, info_nce
from moco.recipe import OptimSpec
from moco.train.optim import optimizer_for

N, C, TAU = 256, 128, 0.2
BLOCK = 1024  # keys at a time, in the lower bound
FEW = 32  # queries whose gradient is compared with float64


def operands(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and positives N x C, keys K x C."""
    rng = torch.Generator().manual_seed(0)
    q, positive, keys = (F.normalize(torch.randn(rows, C, generator=rng), dim=1) for rows in (N, N, size))
    return q, positive, keys


def our_loss(q: Tensor, positive: Tensor, keys: Tensor) -> Tensor:
    """Our loss, forward and backward. Returns the gradient with respect to q."""
    leaf = q.clone().requires_grad_()
    info_nce(LookUp(leaf, keys, positive=positive), TAU).backward()
    assert leaf.grad is not None
    return leaf.grad


def usual_loss(q: Tensor, positive: Tensor, columns: Tensor) -> Tensor:
    """The usual loss: the queue as C x K, and all logits in memory."""
    leaf = q.clone().requires_grad_()
    loss_of(leaf, positive, columns, TAU).backward()
    assert leaf.grad is not None
    return leaf.grad


def two_products(q: Tensor, keys: Tensor) -> Tensor:
    """The lower bound: q.k, and the sum of keys weighted by it, a block at a time."""
    total = torch.zeros_like(q)
    for some in keys.split(BLOCK):
        total.addmm_(q @ some.T, some)
    return total


def gradient_error(size: int) -> float:
    """Relative error of our dL/dq against float64 for a few queries: |ours - exact| / |exact|."""
    q, positive, keys = operands(size)
    exact = usual_loss(q[:FEW].double(), positive[:FEW].double(), keys.T.double().contiguous())
    ours = our_loss(q[:FEW], positive[:FEW], keys).double()
    return float((ours - exact).norm() / exact.norm())


def make_ours(size: int) -> Work:
    return partial(our_loss, *operands(size))


def make_usual(size: int) -> Work:
    q, positive, keys = operands(size)
    return partial(usual_loss, q, positive, keys.T.contiguous())


def warm(make: Callable[[int], Work], size: int) -> Work:
    """The work over `size` keys, after one call with few keys that does one-time initialization."""
    make(BLOCK)()
    return make(size)


def loss_times(size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of our loss, the usual one and the lower bound, on the same operands."""
    q, positive, keys = operands(size)
    works: dict[str, Work] = {
        "ours": partial(our_loss, q, positive, keys),
        "usual": partial(usual_loss, q, positive, keys.T.contiguous()),
        "lower_bound": partial(two_products, q, keys),
    }
    return interleaved(works, rounds=rounds)


def loss(size: int, rounds: int) -> Iterator[Result]:
    """Eqn. (1), forward and backward, and the memory that it takes besides its operands.

    Runs in new processes, where no freed memory can be reused: glibc requests every buffer of 32 MB or more from the
    kernel, which is most of the usual loss's time.
    """
    times = memory.alone(loss_times, size, rounds)
    ours, usual = (memory.beyond_mb(memory.peak(partial(warm, make, size))) for make in (make_ours, make_usual))
    yield result(
        f"loss/K={size}", times["ours"], times["usual"], against="all logits, cross-entropy; lower bound: two products",
        lower_bound=times["lower_bound"], memory=(ours, usual), error=gradient_error(size),
    )  # fmt: skip


def per_key(rounds: int) -> Iterator[Result]:
    """Our time per block of keys with many keys, against that with few keys."""
    few, many = 1 << 14, 1 << 20
    times = interleaved({"many": make_ours(many), "few": make_ours(few)}, rounds=rounds)
    of_many, of_few = (
        [seconds * BLOCK / size for seconds in times[which]] for which, size in (("many", many), ("few", few))
    )
    yield result("loss/per-key", of_many, of_few, against=f"ours with {few:,} keys, not {many:,}; {BLOCK:,} of them")


def copied(network: nn.Module, streams: float) -> Work:
    """The lower bound of an in-place update that reads and writes `streams` numbers per parameter: a copy of as many.

    A copy has three per element, because the target's cache lines are read before they are written.
    """
    count = int(sum(parameter.numel() for parameter in network.parameters()) * streams / 3)
    return partial(torch.ones(count).copy_, torch.zeros(count))


def momentum_update(rounds: int) -> Iterator[Result]:
    """Eqn. (2) for a ResNet-50."""
    f_q = resnet50(num_classes=C)
    f_k, usual = MomentumEncoder(f_q), MoCo(f_q, dim=C, size=N, m=0.999, temperature=TAU)
    yield compare(
        "ema/resnet50", lambda: f_k.follow(f_q, 0.999), usual.follow, lower_bound=copied(f_q, streams=3),
        against="a loop of new tensors; lower bound: a copy of as much", rounds=rounds,
    )  # fmt: skip


def with_gradients(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    return network


def update(name: str, make: Callable[[], nn.Module], spec: OptimSpec, streams: float, rounds: int) -> Iterator[Result]:
    """One optimizer step with given gradients, against torch's default (for LARS, a plain loop)."""
    ours, usual = with_gradients(make()), with_gradients(make())
    optimizer, decay = optimizer_for(ours, spec), spec.weight_decay
    for group in optimizer.param_groups:
        group["lr"] = 1e-5
    match spec.optimizer:
        case "sgd":
            other = torch.optim.SGD(usual.parameters(), 1e-5, momentum=spec.momentum, weight_decay=decay)
        case "adamw":
            other = torch.optim.AdamW(usual.parameters(), 1e-5, weight_decay=decay)
        case "lars":
            other = LARS(usual.parameters(), lr=1e-5, momentum=spec.momentum, weight_decay=decay, trust=spec.trust)
    what = "a loop that looks at the norms" if spec.optimizer == "lars" else "torch's default"
    yield compare(
        f"optimizer/{name}", optimizer.step, other.step, lower_bound=copied(ours, streams=streams),
        against=f"{what}; lower bound: a copy of as much", rounds=rounds,
    )  # fmt: skip


SGD = OptimSpec(optimizer="sgd", weight_decay=1e-4)
LARS_SPEC = OptimSpec(optimizer="lars", weight_decay=1e-6)
ADAMW = OptimSpec(optimizer="adamw", weight_decay=0.1)

ROWS = [
    Row("loss/K=4096", partial(loss, 1 << 12)),
    Row("loss/K=65536", partial(loss, 1 << 16)),
    Row("loss/K=1048576", partial(loss, 1 << 20), slow=True),
    Row("loss/per-key", per_key, slow=True),
    Row("ema/resnet50", momentum_update),
    # numbers read and written per parameter: SGD p, g, momentum; AdamW one more; LARS also reads p and g for norms
    Row("optimizer/sgd-resnet50", partial(update, "sgd-resnet50", resnet50, SGD, 5)),
    Row("optimizer/adamw-vit-small", partial(update, "adamw-vit-small", partial(ViT, VITS["vit_small"]), ADAMW, 7)),
    Row("optimizer/lars-resnet50", partial(update, "lars-resnet50", resnet50, LARS_SPEC, 7), slow=True),
]
