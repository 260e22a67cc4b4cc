"""Five steps of MoCo v3 equal an independent reading of its paper in float64: losses, parameters, statistics.

The reading below uses nothing of `moco` but the first weights: functional convolutions, batch norms, attention head by
head, cross-entropy over the mini-batch's keys, LARS and AdamW written out. Its key encoder is updated where the paper's
code does it, before the keys of a step are made (arXiv:2104.02057, Alg. 1); ours at the end of the step before.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moco.encoders import build
from moco.encoders.heads import predictor
from moco.method import Batch, Contrast, MomentumEncoder
from moco.recipe import EncoderSpec, OptimSpec
from moco.schedule import Cosine
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train
from moco.train.optim import optimizer_for

N, SIDE, STEPS, TOTAL, WARM = 8, 8, 5, 6, 2  # TOTAL, WARM in steps; an epoch has 2
Weights = dict[str, Tensor]


def bn(p: Weights, name: str, x: Tensor) -> Tensor:
    """Batch norm with the statistics of the batch; updates the running ones in `p`."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean, var = x.mean(dim=axes, keepdim=True), x.var(dim=axes, unbiased=False, keepdim=True)
    for kind, value in (("mean", mean), ("var", var * x[:, 0].numel() / (x[:, 0].numel() - 1))):
        p[f"{name}.running_{kind}"] = 0.9 * p[f"{name}.running_{kind}"] + 0.1 * value.detach().flatten()
    x = (x - mean) / (var + 1e-5).sqrt()
    if f"{name}.weight" not in p:
        return x
    return x * p[f"{name}.weight"].reshape(mean.shape) + p[f"{name}.bias"].reshape(mean.shape)


def relu(x: Tensor) -> Tensor:
    """With gradient 0 at 0. That of `clamp` is 1 in torch 2.8, and zero-initialised branches give many zeros."""
    return x * (x > 0)


def resnet10(p: Weights, x: Tensor) -> Tensor:
    y = relu(bn(p, "backbone.bn1", F.conv2d(x, p["backbone.conv1.weight"], padding=1)))
    for i in range(1, 5):
        name, stride = f"backbone.layer{i}.0.", 1 if i == 1 else 2
        z = relu(bn(p, name + "bn1", F.conv2d(y, p[name + "conv1.weight"], stride=stride, padding=1)))
        z = bn(p, name + "bn2", F.conv2d(z, p[name + "conv2.weight"], padding=1))
        if i > 1:
            y = bn(p, name + "downsample.1", F.conv2d(y, p[name + "downsample.0.weight"], stride=stride))
        y = relu(y + z)
    return y.mean(dim=(2, 3))


def layer_norm(p: Weights, name: str, x: Tensor) -> Tensor:
    x = x - x.mean(dim=-1, keepdim=True)
    return x / ((x * x).mean(dim=-1, keepdim=True) + 1e-6).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(p: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = (x @ p[f"{name}.qkv.weight"].T + p[f"{name}.qkv.bias"]).chunk(3, dim=-1)
    width = q.shape[-1] // heads
    made = []
    for head in range(heads):
        one = slice(head * width, (head + 1) * width)
        scores = q[..., one] @ k[..., one].transpose(1, 2) / width**0.5
        made.append(torch.exp(scores - scores.logsumexp(dim=-1, keepdim=True)) @ v[..., one])
    return torch.cat(made, dim=-1) @ p[f"{name}.proj.weight"].T + p[f"{name}.proj.bias"]


def vit_micro(p: Weights, x: Tensor) -> Tensor:
    p = {name.removeprefix("backbone."): value for name, value in p.items()}
    kernel = p["patch_embed.proj.weight"]
    patches = F.unfold(x, kernel.shape[-1], stride=kernel.shape[-1]).transpose(1, 2)
    tokens = patches @ kernel.reshape(len(kernel), -1).T + p["patch_embed.proj.bias"]
    y = torch.cat([p["cls_token"].repeat(len(x), 1, 1), tokens], dim=1) + p["pos_embed"]
    for i in range(len({name.split(".")[1] for name in p if name.startswith("blocks.")})):
        y = y + attention(p, f"blocks.{i}.attn", layer_norm(p, f"blocks.{i}.norm1", y), heads=4)
        z = layer_norm(p, f"blocks.{i}.norm2", y) @ p[f"blocks.{i}.mlp.fc1.weight"].T + p[f"blocks.{i}.mlp.fc1.bias"]
        z = z * 0.5 * (1 + torch.erf(z / 2**0.5))  # GELU
        y = y + z @ p[f"blocks.{i}.mlp.fc2.weight"].T + p[f"blocks.{i}.mlp.fc2.bias"]
    return layer_norm(p, "norm", y)[:, 0]


def mlp(p: Weights, prefix: str, x: Tensor, *, layers: int, last_bn: bool) -> Tensor:
    for i in range(layers):
        x = x @ p[f"{prefix}.{3 * i}.weight"].T
        if last_bn or i < layers - 1:
            x = bn(p, f"{prefix}.{3 * i + 1}", x)
        x = relu(x) if i < layers - 1 else x
    return x


def contrastive(q: Tensor, k: Tensor, tau: float) -> Tensor:
    q, k = (x / (x * x).sum(dim=1, keepdim=True).sqrt() for x in (q, k))
    return 2 * tau * F.cross_entropy(q @ k.T / tau, torch.arange(N))


def lars(p: Tensor, g: Tensor, state: dict, lr: float) -> Tensor:
    if p.dim() > 1:
        g = g + 1e-6 * p
        g = g * (1e-3 * p.norm() / g.norm() if p.norm() > 0 and g.norm() > 0 else 1.0)
    state["mu"] = 0.9 * state.get("mu", 0) + g
    return p - lr * state["mu"]


def adamw(p: Tensor, g: Tensor, state: dict, lr: float) -> Tensor:
    t = state["t"] = state.get("t", 0) + 1
    p = p - lr * 0.1 * p
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
    return p - lr * (state["m"] / (1 - 0.9**t)) / ((state["v"] / (1 - 0.999**t)).sqrt() + 1e-8)


class Case(NamedTuple):
    spec: EncoderSpec
    optim: OptimSpec
    predictor: str
    tau: float
    m: float
    base_lr: float
    backbone: Callable[[Weights, Tensor], Tensor]
    update: Callable[[Tensor, Tensor, dict, float], Tensor]


HEADS = {"hidden": 12, "dim": 6}
CASES = {
    "resnet": Case(
        EncoderSpec(name="resnet10", stem="3x3", width=1 / 16, zero_init=True, head="projector2", **HEADS),
        OptimSpec(optimizer="lars", weight_decay=1e-6, trust=1e-3), "mlp", 1.0, 0.9, 9.6, resnet10, lars,
    ),
    "vit": Case(
        EncoderSpec(name="vit_micro", patch=4, freeze_patch=True, head="projector3", **HEADS),
        OptimSpec(optimizer="adamw", weight_decay=0.1), "mlp_bn", 0.2, 0.99, 0.01, vit_micro, adamw,
    ),
}  # fmt: skip


def reading(case: Case, start: Weights, fixed: set[str], batches: list) -> tuple[list[float], Weights, Weights]:
    """MoCo v3, Alg. 1. `start` has the weights of f_q with its projector, and of the predictor; `fixed` do not move."""
    layers, last_bn = (3, True) if case.spec.name == "vit_micro" else (2, False)
    theta_q = {name: x.clone() for name, x in start.items()}
    theta_k = {name: x.clone() for name, x in start.items() if not name.startswith("predictor.")}
    trained = [name for name in start if name not in fixed and "running" not in name and "num_batches" not in name]
    followed = [name for name in theta_k if "running" not in name and "num_batches" not in name]
    states: dict[str, dict] = {name: {} for name in trained}
    losses = []
    for t in range(STEPS + 1):
        m = 1 - (1 - case.m) * 0.5 * (1 + math.cos(math.pi * t / TOTAL))
        for name in followed:
            theta_k[name] = m * theta_k[name] + (1 - m) * theta_q[name].detach()
        if t == STEPS:  # ours has made this update already
            return losses, theta_q, theta_k
        for name in trained:
            theta_q[name] = theta_q[name].detach().requires_grad_()
        loss = torch.zeros((), dtype=torch.float64)
        x1, x2 = batches[t][0]
        with torch.no_grad():  # k1, k2 = f_k(x1), f_k(x2): the running statistics see x1 first
            k1, k2 = [mlp(theta_k, "head", case.backbone(theta_k, x), layers=layers, last_bn=True) for x in (x1, x2)]
        for x_q, k in ((x1, k2), (x2, k1)):
            q = mlp(theta_q, "head", case.backbone(theta_q, x_q), layers=layers, last_bn=True)
            loss = loss + contrastive(mlp(theta_q, "predictor", q, layers=2, last_bn=last_bn), k, case.tau)
        grads = torch.autograd.grad(loss, [theta_q[name] for name in trained])
        decay = 0.5 * (1 + math.cos(math.pi * (t - WARM) / (TOTAL - WARM)))
        lr = case.base_lr * (t / WARM if t < WARM else decay)
        for name, grad in zip(trained, grads, strict=True):
            theta_q[name] = case.update(theta_q[name].detach(), grad, states[name], lr)
        losses.append(loss.item())
    raise AssertionError


def compare(name: str, scale: float | None = None) -> None:
    """Asserts that ours is as the reading; `scale` plants another factor of the loss."""
    case = CASES[name]
    torch.manual_seed(1)
    encoder = build(case.spec, size=SIDE).double()
    on_top = predictor(case.spec, case.predictor).double()
    start = encoder.state_dict() | {f"predictor.{key}": value for key, value in on_top.state_dict().items()}
    fixed = {key for key, value in encoder.named_parameters() if not value.requires_grad}
    batches = [([torch.randn(N, 3, SIDE, SIDE).double() for _ in range(2)], torch.arange(N)) for _ in range(STEPS)]
    expected, theta_q, theta_k = reading(case, start, fixed, batches)

    contrast = Contrast(
        encoder, MomentumEncoder(encoder), Batch(), predictor=on_top, temperature=case.tau, symmetric=True,
        shuffle_bn=False, loss_scale=2 * case.tau if scale is None else scale,
    ).train()  # fmt: skip
    state = TrainState(contrast, optimizer_for(contrast, case.optim), Clock(steps_per_epoch=2, total_steps=TOTAL))
    losses = []
    train(
        contrast, state, batches, lr=Cosine(case.base_lr, warmup=WARM / 2), m=Cosine(case.m, stop=1.0), seed=5,
        after_step=lambda state, metrics: losses.append(metrics["loss"].item()),
    )  # fmt: skip

    assert losses == pytest.approx(expected, rel=1e-9)
    assert max(losses) - min(losses) > 0.01  # something was learned, or at least moved
    ours_q = encoder.state_dict() | {f"predictor.{key}": value for key, value in on_top.state_dict().items()}
    for ours, theta in ((ours_q, theta_q), (contrast.key_encoder.module.state_dict(), theta_k)):
        for key in theta:
            if "num_batches" not in key:
                # the bias of the attention's k has no gradient but rounding, which Adam divides by itself + 1e-8
                torch.testing.assert_close(ours[key], theta[key].detach(), rtol=1e-7, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", CASES)
def test_five_steps_of_v3_equal_an_independent_implementation(name: str) -> None:
    compare(name)


@pytest.mark.parametrize("name", CASES)
def test_the_comparison_detects_a_loss_without_its_2_tau(name: str) -> None:
    with pytest.raises(AssertionError):
        compare(name, scale=1.0)


@pytest.mark.parametrize("name", CASES)
def test_the_comparison_detects_the_momentum_of_the_step_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    follow, used = Contrast.follow, [CASES[name].m]

    def late(self: Contrast, m: float) -> None:
        used.append(m)
        follow(self, used[-2])

    monkeypatch.setattr(Contrast, "follow", late)
    with pytest.raises(AssertionError):
        compare(name)


def test_the_comparison_detects_keys_that_are_encoded_in_the_other_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batch, "whole", False)  # for the keys alone: there is one BN group
    with pytest.raises(AssertionError, match="running"):
        compare("resnet")
