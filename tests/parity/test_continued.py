"""A run that goes on from a file of MoCo's authors has the losses of their own code going on, in float64.

The steps below are written after the order of their code: the momentum update begins a step (main_moco.py, main_moco.py
of moco-v3), so the f_k of a file is one update behind its f_q. Networks are torchvision's.
"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moco.encoders import build
from moco.encoders.heads import predictor
from moco.method import Batch, Contrast, MomentumEncoder, Queue
from moco.schedule import Constant
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train
from moco.train.warm_start import load_other_parts
from moco.weights.encoder_folder import initialize
from moco.weights.official.layout import parse_official
from tests.weights import reference_files

N, SIDE, BEFORE, STEPS, M, TAU, LR = 8, 32, 3, 3, 0.9, 0.2, 0.05
Views = tuple[Tensor, Tensor]


@torch.no_grad()
def momentum_update(f_q: nn.Module, f_k: nn.Module) -> None:
    for theta_q, theta_k in zip(f_q.parameters(), f_k.parameters(), strict=True):
        theta_k.copy_(theta_k * M + theta_q * (1 - M))


def loss_of_v2(model: nn.Module, views: Views) -> Tensor:
    q = F.normalize(model.encoder_q(views[0]), dim=1)
    with torch.no_grad():
        momentum_update(model.encoder_q, model.encoder_k)
        k = F.normalize(model.encoder_k(views[1]), dim=1)
    logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ model.queue.clone()], dim=1) / TAU
    start = int(model.queue_ptr)
    model.queue[:, start : start + N] = k.T
    model.queue_ptr[0] = (start + N) % model.queue.shape[1]
    return F.cross_entropy(logits, torch.zeros(N, dtype=torch.long))


def loss_of_v3(model: nn.Module, views: Views) -> Tensor:
    q1, q2 = (F.normalize(model.predictor(model.base_encoder(x)), dim=1) for x in views)
    with torch.no_grad():
        momentum_update(model.base_encoder, model.momentum_encoder)
        k1, k2 = (F.normalize(model.momentum_encoder(x), dim=1) for x in views)
    return sum(2 * TAU * F.cross_entropy(q @ k.T / TAU, torch.arange(N)) for q, k in ((q1, k2), (q2, k1)))


def their_steps(model: nn.Module, loss_of: Callable, batches: list[Views]) -> list[float]:
    optimizer = torch.optim.SGD([theta for theta in model.parameters() if theta.requires_grad], LR, momentum=0.9)
    losses = []
    for views in batches:
        loss = loss_of(model, views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def their_model(kind: str) -> nn.Module:
    """As it is before the first step, in float64."""
    torch.manual_seed(0)
    f_q = reference_files.resnet(head=kind)
    f_k = copy.deepcopy(f_q).requires_grad_(False)
    model = reference_files.V1(f_q, f_k) if kind == "v2" else reference_files.V3(f_q, f_k, last_bn=False)
    return model.double().train()


def our_run(kind: str, content: dict, batches: list[Views], *, lags: bool) -> tuple[list[float], nn.Module]:
    found = parse_official(content, "their.pth.tar")
    assert found is not None
    assert found.guess is not None
    assert found.f_k_lags
    encoder = build(found.guess, size=SIDE).double()
    v3 = {"predictor": predictor(found.guess, "mlp").double(), "symmetric": True, "loss_scale": 2 * TAU}
    contrast = Contrast(
        encoder, MomentumEncoder(encoder),
        Queue(reference_files.K, reference_files.DIM).double() if kind == "v2" else Batch(),
        temperature=TAU, shuffle_bn=False, **({} if kind == "v2" else v3),
    ).train()  # fmt: skip
    initialize(encoder, found)
    said = load_other_parts(contrast, found, m=M if lags else 1.0)
    assert "f_k is from the file, with one momentum update" in said[0]
    parameters = [theta for theta in contrast.parameters() if theta.requires_grad]
    state = TrainState(
        contrast, torch.optim.SGD(parameters, 0.0, momentum=0.9), Clock(steps_per_epoch=8, total_steps=8)
    )
    losses: list[float] = []
    train(
        contrast, state, [(list(views), torch.arange(N)) for views in batches], lr=Constant(LR), m=Constant(M), seed=0,
        after_step=lambda state, metrics: losses.append(metrics["loss"].item()),
    )  # fmt: skip
    return losses, contrast


def compare(kind: str, *, lags: bool = True) -> None:
    """Asserts that ours goes on as theirs; `lags=False` leaves out the update at import."""
    model, loss_of = their_model(kind), {"v2": loss_of_v2, "v3": loss_of_v3}[kind]
    batches: list[Views] = [tuple(torch.randn(2, N, 3, SIDE, SIDE).double()) for _ in range(BEFORE + STEPS)]
    their_steps(model, loss_of, batches[:BEFORE])
    content = copy.deepcopy({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}})
    expected = their_steps(model, loss_of, batches[BEFORE:])
    losses, contrast = our_run(kind, content, batches[BEFORE:], lags=lags)
    assert losses == pytest.approx(expected, rel=1e-9)
    f_k = model.encoder_k if kind == "v2" else model.momentum_encoder
    ours = {key.partition(".")[2]: value for key, value in contrast.key_encoder.module.state_dict().items()}
    statistics = [key for key in f_k.state_dict() if "running" in key and not key.startswith("fc.")]
    for key in statistics:
        torch.testing.assert_close(ours[key], f_k.state_dict()[key], rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_a_run_from_the_authors_file_continues_like_their_code(kind: str) -> None:
    compare(kind)


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_without_the_momentum_update_at_import_the_losses_differ(kind: str) -> None:
    with pytest.raises(AssertionError):
        compare(kind, lags=False)
