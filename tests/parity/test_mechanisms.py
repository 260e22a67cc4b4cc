"""Six steps of end-to-end learning and of the memory bank equal independent readings in float64.

The readings use nothing of `moco` but the seeds: the deal of Shuffling BN is `randperm`, the bank's draw `randint`, of
generators seeded with fold(seed, step). See test_algorithm1.py for MoCo itself.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from parity.written_out import GROUPS, SEED, N, encoder, f

from moco.method import NCE, Batch, Contrast, MemoryBank, compare
from moco.rng import fold
from moco.schedule import Constant
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train

STEPS, IMAGES, K, TAU, LR = 6, 12, 9, 0.1, 0.05


def batches() -> list:
    rng = torch.Generator().manual_seed(3)
    ids = [torch.randperm(IMAGES, generator=rng)[:N] for _ in range(STEPS)]
    return [([torch.randn(N, 3, 6, 6, generator=rng).double() for _ in range(2)], some) for some in ids]


def trained(start: dict) -> list[str]:
    return [name for name in start if "running" not in name and "num_batches" not in name]


def sgd(theta: dict, velocity: dict, loss: torch.Tensor, names: list[str]) -> None:
    grads = torch.autograd.grad(loss, [theta[name] for name in names])
    for name, grad in zip(names, grads, strict=True):
        velocity[name] = 0.9 * velocity[name] + grad + 1e-4 * theta[name].detach()
        theta[name] = (theta[name].detach() - LR * velocity[name]).requires_grad_()


def leaves(start: dict) -> dict:
    names = trained(start)
    return {name: x.clone().requires_grad_(name in names) for name, x in start.items()}


def end_to_end_by_hand(start: dict, second: bool) -> tuple[list[float], dict, dict]:
    """Fig. 2(a): keys of the mini-batch, with gradient; an own encoder for them, or the same."""
    names, theta_q = trained(start), leaves(start)
    theta_k = leaves(start) if second else theta_q
    velocities = [{name: torch.zeros_like(start[name]) for name in names} for _ in range(2)]
    losses = []
    for step, ((x_q, x_k), _) in enumerate(batches()):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(fold(SEED, step)))
        q = f(theta_q, x_q, "linear")
        k = f(theta_k, x_k[order], "linear")[order.argsort()]
        loss = F.cross_entropy(q @ k.T / TAU, torch.arange(N))
        losses.append(loss.item())
        if second:
            names_q, names_k = [theta_q[n] for n in names], [theta_k[n] for n in names]
            grads = torch.autograd.grad(loss, names_q + names_k)
            for theta, velocity, some in zip((theta_q, theta_k), velocities, (grads[: len(names)], grads[len(names) :]), strict=True):  # fmt: skip  # noqa: E501
                for name, grad in zip(names, some, strict=True):
                    velocity[name] = 0.9 * velocity[name] + grad + 1e-4 * theta[name].detach()
                    theta[name] = (theta[name].detach() - LR * velocity[name]).requires_grad_()
        else:
            sgd(theta_q, velocities[0], loss, names)
    return losses, theta_q, theta_k


def run(contrast: Contrast) -> list[float]:
    optimizer = torch.optim.SGD(
        [theta for theta in contrast.parameters() if theta.requires_grad], lr=0.0, momentum=0.9, weight_decay=1e-4
    )
    state = TrainState(contrast.train(), optimizer, Clock(steps_per_epoch=2, total_steps=STEPS))
    losses: list[float] = []
    train(
        contrast, state, batches(), lr=Constant(LR), m=Constant(0.99), seed=SEED,
        after_step=lambda state, metrics: losses.append(metrics["loss"].item()),
    )  # fmt: skip
    return losses


def assert_same_parameters(network, theta: dict) -> None:
    for name, x in network.named_parameters():
        torch.testing.assert_close(x.detach(), theta[name].detach(), rtol=1e-8, atol=1e-12, msg=name)


@pytest.mark.parametrize("second", [False, True], ids=["shared encoder", "second encoder"])
def test_end_to_end_equals_an_independent_implementation(second):
    torch.manual_seed(1)
    f_q = encoder("linear")
    losses, theta_q, theta_k = end_to_end_by_hand(f_q.state_dict(), second)
    f_k = copy.deepcopy(f_q) if second else f_q
    found = run(Contrast(f_q, f_k, Batch(), temperature=TAU, bn_groups=GROUPS))
    assert found == pytest.approx(losses, rel=1e-10)
    assert_same_parameters(f_q, theta_q)
    assert_same_parameters(f_k, theta_k)


def test_the_comparison_detects_keys_without_gradient(monkeypatch):
    """The planted fault of many implementations: keys of other queries taken as constants."""
    make = Contrast.encode_keys
    monkeypatch.setattr(Contrast, "encode_keys", lambda self, x, rng: make(self, x, rng).detach())
    with pytest.raises(AssertionError):
        test_end_to_end_equals_an_independent_implementation(False)


def bank_by_hand(start: dict, keys: torch.Tensor, loss: str, shared: bool) -> tuple[list[float], dict, list]:
    """Fig. 2(b), one image and one negative at a time."""
    names, theta, bank, z = trained(start), leaves(start), [key.clone() for key in keys], None
    velocity, losses = {name: torch.zeros_like(start[name]) for name in names}, []
    for step, ((x, _), ids) in enumerate(batches()):
        q, seed, logits = f(theta, x, "linear"), fold(SEED, step), []
        for one, image in zip(q, ids.tolist(), strict=True):
            deal = torch.Generator().manual_seed(seed if shared else fold(seed, image))
            drawn = torch.randint(IMAGES, (K,), generator=deal).tolist()
            logits.append(torch.stack([one @ bank[image], *(one @ bank[i] for i in drawn)]) / TAU)
        logits = torch.stack(logits)
        if loss == "infonce":
            value = (logits.logsumexp(dim=1) - logits[:, 0]).mean()
        else:
            estimate = IMAGES * logits.detach().exp().mean()
            z = estimate if z is None else 0.99 * z + 0.01 * estimate
            p = logits.exp() / z
            h = p / (p + K / IMAGES)
            value = -(h[:, 0].log() + (1 - h[:, 1:]).log().sum(dim=1)).mean()
        losses.append(value.item())
        made = q.detach()
        sgd(theta, velocity, value, names)
        for one, image in zip(made, ids.tolist(), strict=True):
            mixed = 0.5 * bank[image] + 0.5 * one
            bank[image] = mixed / mixed.norm()
    return losses, theta, bank


@pytest.mark.parametrize("shared", [True, False], ids=["drawn for all", "drawn for each"])
@pytest.mark.parametrize("loss", ["infonce", "nce"])
def test_memory_bank_equals_an_independent_implementation(loss, shared):
    torch.manual_seed(1)
    f_q = encoder("linear")
    bank = MemoryBank(IMAGES, K, 4, shared=shared).double()
    losses, theta, keys = bank_by_hand(f_q.state_dict(), bank.keys, loss, shared)
    judge = NCE(IMAGES).double() if loss == "nce" else compare
    found = run(Contrast(f_q, None, bank, temperature=TAU, shuffle_bn=False, bn_groups=GROUPS, loss=judge))
    assert found == pytest.approx(losses, rel=1e-10)
    assert_same_parameters(f_q, theta)
    torch.testing.assert_close(bank.keys, torch.stack(keys), rtol=1e-9, atol=1e-12)


def test_the_comparison_detects_a_bank_that_is_updated_before_it_is_looked_up(monkeypatch):
    look_up, update = MemoryBank.look_up, MemoryBank.update

    def hasty(self, q, k, ids, rng):
        update(self, k, ids, 0)
        return look_up(self, q, k, ids, rng)

    monkeypatch.setattr(MemoryBank, "look_up", hasty)
    monkeypatch.setattr(MemoryBank, "update", lambda self, k, ids, step: None)
    with pytest.raises(AssertionError):
        test_memory_bank_equals_an_independent_implementation("infonce", True)


@pytest.mark.parametrize("seed", range(3))
def test_the_three_mechanisms_give_identical_logits_for_the_same_keys(seed):
    """Queue, bank and batch that hold the same keys, looked up by the same queries: equal bits in every logit."""
    from moco.method import Queue

    rng = torch.Generator().manual_seed(seed)
    keys, q = (F.normalize(torch.randn(IMAGES, 8, generator=rng), dim=1) for _ in range(2))
    ids = torch.arange(IMAGES)
    queue, bank = Queue(IMAGES, 8), MemoryBank(IMAGES, IMAGES, 8)
    queue.update(keys, ids, 0)
    bank.keys.copy_(keys)
    bank._draw = lambda seed: ids  # every key once, instead of a random choice
    in_queue, own = queue.look_up(q, keys, ids, rng).logits()[0][:, 1:], queue.look_up(q, keys, ids, rng).logits()[0]
    in_bank = bank.look_up(q, keys, ids, rng).logits()[0]
    in_batch, match = Batch().look_up(q, keys, ids, rng).logits()
    assert torch.equal(in_queue, in_batch)
    assert torch.equal(in_bank, own)
    torch.testing.assert_close(in_bank[:, 0], in_batch[ids, match], rtol=1e-6, atol=1e-7)  # a sum, a matrix product
