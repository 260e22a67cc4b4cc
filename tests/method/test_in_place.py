"""Networks that change their input in place train as their twins that do not, and the views stay as they were."""

import copy

import pytest
import torch
from torch import Tensor, nn

from moco.method import Batch, CachedContrast, Contrast, MemoryBank, MomentumEncoder, Queue


class Normalizing(nn.Module):
    """Normalizes its input, in one of three ways, before a small network."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.rest = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "out of place":
                x = (x - 0.5) / 0.25
            case "in place":
                x.sub_(0.5).div_(0.25)
            case "in place by data":  # autograd's version counter does not see this
                x.data.sub_(0.5).div_(0.25)
        return self.rest(x)


def queue(f_q: nn.Module, **options) -> Contrast:
    return Contrast(f_q, MomentumEncoder(f_q), Queue(32, 4), bn_groups=2, **options)


def in_batch(f_q: nn.Module, f_k: nn.Module, kind=Contrast, **options) -> Contrast:
    return kind(f_q, f_k, Batch(), bn_groups=2, symmetric=True, **{"shuffle_bn": False} | options)


def in_pieces(f_q: nn.Module, f_k: nn.Module, **options) -> Contrast:
    return in_batch(f_q, f_k, CachedContrast, pieces=2, **options)


MECHANISMS = {
    "queue": queue,
    "queue without shuffling": lambda f_q: queue(f_q, shuffle_bn=False),
    "queue, symmetric": lambda f_q: queue(f_q, symmetric=True),
    "queue, symmetric without shuffling": lambda f_q: queue(f_q, symmetric=True, shuffle_bn=False),
    "v3": lambda f_q: in_batch(f_q, MomentumEncoder(f_q), predictor=nn.Linear(4, 4)),
    "v3, in pieces": lambda f_q: in_pieces(f_q, MomentumEncoder(f_q), predictor=nn.Linear(4, 4)),
    "end-to-end": lambda f_q: in_batch(f_q, f_q),
    "end-to-end, shuffled": lambda f_q: in_batch(f_q, f_q, shuffle_bn=True),
    "end-to-end, second encoder": lambda f_q: in_batch(f_q, copy.deepcopy(f_q)),
    "end-to-end, in pieces": lambda f_q: in_pieces(f_q, f_q),
    "memory bank": lambda f_q: Contrast(f_q, None, MemoryBank(16, 8, 4), bn_groups=2, shuffle_bn=False),
}


def step(mechanism: str, how: str, views: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """One step: losses, keys and gradients; and all parameters and buffers after it."""
    torch.manual_seed(0)
    model = MECHANISMS[mechanism](Normalizing(how)).train()
    rng = torch.Generator().manual_seed(1)
    found: list[Tensor] = []
    for part in model.parts(views, torch.arange(8), rng):
        answer = model(part, rng)
        answer.loss.backward()
        found += [answer.loss.detach(), answer.k]
    return found + [x.grad for x in model.parameters() if x.grad is not None], model.state_dict()


@pytest.mark.parametrize("how", ["in place", "in place by data"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_network_that_changes_its_input_trains_the_same_and_does_not_change_the_views(mechanism, how):
    views = [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    before = copy.deepcopy(views)
    expected, state = step(mechanism, "out of place", copy.deepcopy(views))
    found, other = step(mechanism, how, views)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(torch.equal(other[name], x) for name, x in state.items())
    assert all(torch.equal(a, b) for a, b in zip(views, before, strict=True))
