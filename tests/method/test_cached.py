"""Two passes over pieces give the loss, the gradient and the BN statistics of one pass over the whole mini-batch."""

import copy

import pytest
import torch
from torch import nn

from moco.method import Batch, CachedContrast, Contrast, MomentumEncoder, Queue

KEYS = {
    "momentum": MomentumEncoder,
    "shared": lambda encoder: encoder,
    "second": copy.deepcopy,
}


def net(dropout: float = 0.0) -> nn.Sequential:
    trunk = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(6 * 9, 4)]
    return nn.Sequential(*trunk).double()


def models(kind: str, *, pieces: int, symmetric: bool, dropout: float = 0.0) -> tuple[Contrast, CachedContrast]:
    settings = {"temperature": 0.2, "symmetric": symmetric, "bn_groups": 4, "loss_scale": 0.4}
    made = []
    for make in (Contrast, lambda *networks, **rest: CachedContrast(*networks, pieces=pieces, **rest)):
        torch.manual_seed(0)
        encoder = net(dropout)
        predictor = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).double()
        made.append(make(encoder, KEYS[kind](encoder), Batch(), predictor=predictor, **settings).train())
    return made[0], made[1]


def step(model: Contrast, views: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward and backward as in `train`: the loss and the share of queries that find their key."""
    rng = torch.Generator().manual_seed(7)
    answers = []
    for part in model.parts(views, torch.arange(len(views[0])), rng):
        answers.append(model(part, rng))
        answers[-1].loss.backward()
    return sum(answer.loss.detach() for answer in answers), torch.stack([answer.top1 for answer in answers]).mean()


@pytest.mark.parametrize("symmetric", [False, True], ids=["one direction", "symmetric"])
@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("kind", KEYS)
def test_two_passes_over_pieces_equal_one_over_the_mini_batch(kind, pieces, symmetric):
    plain, cached = models(kind, pieces=pieces, symmetric=symmetric)
    views = [torch.randn(16, 3, 5, 5).double() for _ in range(2)]
    expected, top1 = step(plain, views)
    loss, found = step(cached, views)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert found == top1
    for (name, theta), other in zip(plain.named_parameters(), cached.parameters(), strict=True):
        if theta.requires_grad:
            torch.testing.assert_close(other.grad, theta.grad, rtol=1e-9, atol=1e-13, msg=name)
    if kind == "shared":
        return  # one BN, which queries and keys come to in turns: its running means weigh them otherwise
    for (name, one), other in zip(plain.named_buffers(), cached.buffers(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-14, msg=name)


def test_pieces_without_the_keys_of_the_others_would_have_another_gradient():
    """The planted fault: plain accumulation over pieces, which the exact way must differ from."""
    plain, _ = models("momentum", pieces=2, symmetric=False)
    views = [torch.randn(16, 3, 5, 5).double() for _ in range(2)]
    step(plain, views)
    whole = [theta.grad.clone() for theta in plain.encoder.parameters()]
    plain.zero_grad()
    for rows in (slice(0, 8), slice(8, 16)):
        step(plain, [view[rows] for view in views])
    pieces = [theta.grad / 2 for theta in plain.encoder.parameters()]
    assert not all(torch.allclose(a, b, rtol=1e-3) for a, b in zip(whole, pieces, strict=True))


def test_both_passes_drop_the_same_units():
    """By finite differences: with other masks in the second pass its gradient would be of another function."""
    _, cached = models("momentum", pieces=4, symmetric=False, dropout=0.5)
    views = [torch.randn(16, 3, 5, 5).double() for _ in range(2)]
    step(cached, views)
    weight = cached.encoder[5].weight
    slope, ends = weight.grad[1, 3].item(), []
    for move in (1e-5, -2e-5):
        weight.data[1, 3] += move
        ends.append(step(cached, views)[0].item())
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_the_graph_of_only_one_piece_is_alive_at_a_time():
    """Sizes of what autograd keeps for the backward pass, piece by piece, against the whole mini-batch."""

    def saved_bytes(model: Contrast, views: list) -> int:
        rng, most = torch.Generator().manual_seed(7), 0
        for part in model.parts(views, torch.arange(len(views[0])), rng):
            sizes: list[int] = []
            with torch.autograd.graph.saved_tensors_hooks(
                lambda x, sizes=sizes: (sizes.append(x.numel() * x.element_size()), x)[1], lambda x: x
            ):
                model(part, rng).loss.backward()
            most = max(most, sum(sizes))
        return most

    plain, cached = models("momentum", pieces=4, symmetric=False)
    views = [torch.randn(64, 3, 5, 5).double() for _ in range(2)]
    assert saved_bytes(cached, views) < 0.3 * saved_bytes(plain, views)


def test_a_method_that_cannot_be_cut_into_pieces_is_refused():
    encoder = net()
    with pytest.raises(ValueError, match="whole number of the 4 BN groups"):
        CachedContrast(encoder, MomentumEncoder(encoder), Batch(), bn_groups=4, pieces=3)
    with pytest.raises(ValueError, match="use Contrast"):
        CachedContrast(encoder, MomentumEncoder(encoder), Queue(8, 4), bn_groups=4, pieces=2)
