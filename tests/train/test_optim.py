import copy

import pytest
import torch
from torch import nn

from moco.encoders import build
from moco.encoders.heads import predictor
from moco.method import Batch, Contrast, MomentumEncoder
from moco.recipe import EncoderSpec, OptimSpec
from moco.train.optim import LARS, optimizer_for

SPEC = EncoderSpec(name="vit_micro", head="projector3", hidden=16, dim=8, freeze_patch=True)
LARS_SPEC = OptimSpec(optimizer="lars", momentum=0.9, weight_decay=0.1, trust=0.02)


def contrast() -> Contrast:
    encoder = build(SPEC, size=16)
    return Contrast(encoder, MomentumEncoder(encoder), Batch(), predictor=predictor(SPEC, "mlp_bn"), shuffle_bn=False)


def tensors() -> list[nn.Parameter]:
    """A convolution, a matrix, a matrix of zeros, a vector and a number."""
    made = [torch.randn(4, 3, 2, 2), torch.randn(5, 4), torch.zeros(3, 2), torch.randn(5), torch.randn(())]
    return [nn.Parameter(x) for x in made]


def lars(p: torch.Tensor, grads: list[torch.Tensor], lrs: list[float]) -> torch.Tensor:
    """LARS as MoCo v3 has it, read in float64 with plain sums."""
    p, v = p.detach().double(), torch.zeros_like(p, dtype=torch.float64)
    for grad, lr in zip(grads, lrs, strict=True):
        g = grad.double()
        if p.dim() >= 2:
            g = g + 0.1 * p
            p_norm, g_norm = (p * p).sum().sqrt().item(), (g * g).sum().sqrt().item()
            g = g * (0.02 * p_norm / g_norm if p_norm > 0 and g_norm > 0 else 1)
        v = 0.9 * v + g
        p = p - lr * v
    return p


def test_five_steps_of_lars_equal_an_independent_implementation() -> None:
    torch.manual_seed(0)
    parameters, lrs = tensors(), [0.0, 0.4, 1.0, 0.7, 0.2]
    grads = [[torch.randn_like(p) for _ in lrs] for p in parameters]
    grads[1][2].zero_()  # weight decay alone is left
    grads[2][0].zero_()  # nothing is left: both norms are 0
    expected = [lars(p, g, lrs) for p, g in zip(parameters, grads, strict=True)]
    optimizer = LARS(parameters, momentum=0.9, weight_decay=0.1, trust=0.02)
    for step, lr in enumerate(lrs):
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad[step]
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-5, atol=1e-6)


def test_lars_does_not_change_gradients_or_parameters_without_one() -> None:
    moved, still = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    moved.grad = torch.full((2, 2), 3.0)
    optimizer = LARS([moved, still], lr=1.0, momentum=0.9, weight_decay=0.1, trust=0.1)
    optimizer.step()
    assert torch.equal(moved.grad, torch.full((2, 2), 3.0))
    assert torch.equal(still, torch.ones(2, 2))
    assert not torch.equal(moved, torch.ones(2, 2))


def test_lars_resumes_from_its_state() -> None:
    torch.manual_seed(0)
    whole = tensors()
    halves = [nn.Parameter(p.detach().clone()) for p in whole]
    first, straight = (optimizer_for(nn.ParameterList(ps), LARS_SPEC) for ps in (halves, whole))
    for step in range(4):
        if step == 2:
            state, first = copy.deepcopy(first.state_dict()), optimizer_for(nn.ParameterList(halves), LARS_SPEC)
            first.load_state_dict(state)
        for parameter, twin in zip(whole, halves, strict=True):
            parameter.grad = twin.grad = torch.randn_like(parameter)
        for optimizer in (straight, first):
            optimizer.param_groups[0]["lr"] = 0.5
            optimizer.step()
    assert all(torch.equal(parameter, twin) for parameter, twin in zip(whole, halves, strict=True))


def test_lars_takes_its_settings_from_the_recipe() -> None:
    group = optimizer_for(contrast(), LARS_SPEC).param_groups[0]
    settings = {name: value for name, value in group.items() if name != "params"}
    assert settings == {"lr": 0.0, "momentum": 0.9, "weight_decay": 0.1, "trust": 0.02}


def test_adamw_has_the_settings_of_torch_and_decays_everything() -> None:
    model = contrast()
    optimizer = optimizer_for(model, OptimSpec(optimizer="adamw", weight_decay=0.1))
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.1)
    assert group["fused"]
    assert any(parameter is model.encoder.backbone.cls_token for parameter in group["params"])


def test_sgd_is_that_of_torch_with_the_recipes_momentum_and_decay() -> None:
    optimizer = optimizer_for(contrast(), OptimSpec(momentum=0.8, weight_decay=3e-4))
    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["dampening"], group["nesterov"]) == (0.8, 3e-4, 0, False)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_steps_that_a_gradient_scaler_skips_change_nothing(name: str) -> None:
    """The first step is skipped for its infinite gradient; then two are as of an optimizer that never saw it."""
    spec = OptimSpec.model_validate({"optimizer": name, "weight_decay": 0.1})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    twin = copy.deepcopy(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    ours, plain = optimizer_for(model, spec), optimizer_for(twin, spec)
    for x in (torch.full((4, 8), 1e38), torch.randn(4, 8), torch.randn(4, 8)):
        for optimizer in (ours, plain):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = 0.1
        scaler.scale(model(x).pow(2).sum()).backward()
        scaler.step(ours)
        scaler.update()
        if x.abs().max() < 1e38:
            twin(x).pow(2).sum().backward()
            plain.step()
    for parameter, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_encoder_and_predictor_are_trained_and_fixed_parameters_are_left_out(name: str) -> None:
    model = contrast()
    (group,) = optimizer_for(model, OptimSpec.model_validate({"optimizer": name})).param_groups
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    trained = {names[id(parameter)] for parameter in group["params"]}
    fixed = {f"encoder.backbone.{key}" for key in ("pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")}
    assert {key for key in names.values() if not key.startswith("key_encoder.")} == trained | fixed
    assert not trained & fixed


def test_a_shared_encoder_is_trained_once_and_a_second_one_beside_the_first() -> None:
    encoder = build(SPEC, size=16)
    count = sum(parameter.requires_grad for parameter in encoder.parameters())
    for key_encoder, expected in ((encoder, count), (copy.deepcopy(encoder), 2 * count)):
        model = Contrast(encoder, key_encoder, Batch(), shuffle_bn=False)
        assert len(optimizer_for(model, OptimSpec()).param_groups[0]["params"]) == expected


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_training_does_not_change_a_frozen_patch_projection(name: str) -> None:
    model = contrast()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = optimizer_for(model, OptimSpec.model_validate({"optimizer": name, "weight_decay": 0.1}))
    optimizer.param_groups[0]["lr"] = 0.01
    for step in range(2):
        rng = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        for part in model.parts([torch.randn(4, 3, 16, 16) for _ in range(2)], torch.arange(4), rng):
            model(part, rng).loss.backward()
        optimizer.step()
        model.follow(0.9)
    after = model.state_dict()
    for encoder in ("encoder", "key_encoder.module"):
        patch, other = (f"{encoder}.backbone.{key}.weight" for key in ("patch_embed.proj", "blocks.0.mlp.fc1"))
        assert torch.equal(after[patch], before[patch])
        assert not torch.equal(after[other], before[other])


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        (OptimSpec(optimizer="sgd", momentum=0.9, weight_decay=0.1), torch.optim.SGD),
        (OptimSpec(optimizer="adamw", weight_decay=0.1), torch.optim.AdamW),
    ],
)
def test_steps_are_those_of_torch(spec: OptimSpec, theirs: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    ours = nn.Linear(4, 3)
    other = copy.deepcopy(ours)
    mine, reference = optimizer_for(ours, spec), theirs(other.parameters(), lr=0.1, fused=True)
    reference.param_groups[0] |= {name: x for name, x in mine.param_groups[0].items() if name != "params"} | {"lr": 0.1}
    mine.param_groups[0]["lr"] = 0.1
    for _ in range(3):
        for a, b in zip(ours.parameters(), other.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
