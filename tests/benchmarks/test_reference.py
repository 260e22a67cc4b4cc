"""The usual implementation computes what ours computes: only then is the time of one over the other's a speed-up."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import method, step
from benchmarks.reference import batchnorm, queue, v3
from benchmarks.reference.lars import LARS
from moco import recipes
from moco.encoders.vit import VITS, Attention
from moco.method import Contrast
from moco.recipe import OptimSpec, Recipe
from moco.train import optim
from moco.train.loop import train

GROUPS, N, SIZE = 4, 16, 64


def small_queue() -> Recipe:
    changes = {
        "encoder.stem": "3x3/2", "encoder.width": 0.25, "method.size": SIZE, "method.bn_groups": GROUPS,
        "optim.batch_size": N, "data.size": 16, "optim.lr": {"kind": "constant", "value": 0.1},
    }  # fmt: skip
    return recipes.named("moco_cifar").but("small", changes)


def small_v3() -> Recipe:
    changes = {
        "encoder.name": "vit_micro", "encoder.hidden": 32, "encoder.dim": 16, "encoder.freeze_patch": False,
        "optim.batch_size": N, "data.size": 16, "compute.precision": "fp32",
        "optim.lr": {"kind": "constant", "value": 1e-3},
    }  # fmt: skip
    return recipes.named("moco_v3_vit_small").but("small-v3", changes)


def one_step(recipe: Recipe) -> tuple[Contrast, Contrast, float]:
    """Our networks before and after a step, and its loss."""
    state = step.state(recipe)
    contrast = state.model
    assert isinstance(contrast, Contrast)
    before, losses = copy.deepcopy(contrast), []
    train(
        contrast, state, [(list(step.views(recipe)), torch.arange(N))], lr=recipe.optim.lr, m=recipe.method.momentum,
        seed=0, after_step=lambda _, metrics: losses.append(metrics["loss"].item()),
    )  # fmt: skip
    return before, contrast, losses[0]


def strided(x: Tensor) -> Tensor:
    """Rows so that part g of G, i mod G = g, is what was the run g of neighbours."""
    return x[torch.arange(N).view(GROUPS, -1).T.flatten()]


def differing(a: nn.Module, b: nn.Module) -> list[str]:
    """Parameters of `a` that are not those of `b`, to float32's rounding."""
    others = dict(b.named_parameters())
    return [
        name for name, x in a.named_parameters() if not torch.allclose(x, others[name], rtol=1e-3, atol=1e-5)
    ]  # fmt: skip


@pytest.fixture
def without_shuffling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders are drawn from different generators on the two sides."""
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))


@pytest.mark.usefixtures("without_shuffling")
def test_queue_step_has_our_loss_our_weights_and_our_keys():
    recipe = small_queue()
    before, after, loss = one_step(recipe)
    before.encoder.to(memory_format=torch.contiguous_format)
    moco = queue.MoCo(
        batchnorm.split(before.encoder, GROUPS), dim=128, size=SIZE, m=0.99, temperature=recipe.method.temperature
    )
    moco.queue.copy_(before.dictionary.get_buffer("keys").T)
    sgd = torch.optim.SGD(moco.encoder_q.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    x_q, x_k = map(strided, step.views(recipe))
    assert queue.step(moco, sgd, x_q, x_k) == pytest.approx(loss, rel=1e-5)
    assert differing(moco.encoder_q, after.encoder) == []
    assert torch.allclose(moco.queue[:, :N].T, strided(after.dictionary.get_buffer("keys")[:N]), atol=1e-5)


def test_v3_step_has_our_loss_and_our_weights():
    """AdamW's first step is lr x sign(gradient), so weights are compared where that is more than rounding."""
    recipe = small_v3()
    before, after, loss = one_step(recipe)
    moco = v3.MoCoV3(v3.explicit(before.encoder), before.predictor, temperature=recipe.method.temperature)
    adamw = torch.optim.AdamW(moco.parameters(), 1e-3, weight_decay=recipe.optim.weight_decay)
    assert v3.step(moco, adamw, *step.views(recipe), 0.99) == pytest.approx(loss, rel=1e-5)
    ours, compared = dict(after.encoder.named_parameters()), 0
    for name, theirs in moco.base.named_parameters():
        if theirs.grad is not None:
            clear = theirs.grad.abs() > 1e-5
            assert torch.allclose(theirs[clear], ours[name][clear], atol=2e-5), name
            compared += int(clear.sum())
    assert compared > 0.9 * sum(one.numel() for one in moco.base.parameters() if one.grad is not None)


def test_split_batchnorm_is_batchnorm_of_each_part():
    x, layer = torch.randn(12, 3, 2, 2), batchnorm.SplitBatchNorm(3, splits=4)
    y = layer(x)
    for part in range(4):
        assert torch.allclose(y[part::4], F.batch_norm(x[part::4], None, None, training=True), atol=1e-5)


def test_momentum_update_is_equation_2():
    moco = queue.MoCo(nn.Linear(3, 2), dim=2, size=4, m=0.9, temperature=1.0)
    theta_k = moco.encoder_k.weight.detach().clone()
    with torch.no_grad():
        moco.encoder_q.weight.add_(1.0)
    moco.follow()
    assert torch.allclose(moco.encoder_k.weight, 0.9 * theta_k + 0.1 * moco.encoder_q.weight)


def test_explicit_attention_is_torchs():
    layers, x = Attention(VITS["vit_micro"].width, VITS["vit_micro"].heads), torch.randn(2, 5, VITS["vit_micro"].width)
    assert torch.allclose(v3.ExplicitAttention(layers)(x), layers(x), atol=1e-6)


def test_lars_moves_weights_as_ours():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    usual = copy.deepcopy(ours)
    spec = OptimSpec(optimizer="lars", weight_decay=0.1)
    mine = optim.optimizer_for(ours, spec)
    theirs = LARS(usual.parameters(), lr=0.5, momentum=spec.momentum, weight_decay=spec.weight_decay, trust=spec.trust)
    mine.param_groups[0]["lr"] = 0.5
    for _ in range(2):
        for a, b in zip(ours.parameters(), usual.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        theirs.step()
    assert differing(ours, usual) == []


def test_gradient_of_the_usual_loss_is_ours():
    q, positive, keys = method.operands(2048)
    usual = method.usual_loss(q, positive, keys.T.contiguous())
    assert torch.allclose(method.our_loss(q, positive, keys), usual, atol=1e-7)


def test_gradient_error_is_that_of_float32():
    """float32 has 24 bits; a sum of a few thousand terms keeps about 22 of them."""
    assert method.gradient_error(2048) < 2**-22
