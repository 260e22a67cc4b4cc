"""Ten steps of MoCo equal an independent reading of Algorithm 1 in float64: losses, parameters, statistics, queue.

The reading, here and in written_out.py, uses nothing of `moco`: functional convolutions and batch norms over explicit
groups, cross-entropy over concatenated logits, SGD and the momentum update written out, a list for the queue. Only the
seeds are shared: the deal of Shuffling BN is `randperm` from a generator seeded with fold(seed, step).
"""

from collections import deque

import pytest
import torch
import torch.nn.functional as F
from parity.written_out import GROUPS, SEED, N, encoder, f

from moco.method import Contrast, MomentumEncoder, Queue
from moco.rng import fold
from moco.schedule import Constant, Cosine, Steps
from moco.train.checkpoint import Clock, TrainState
from moco.train.loop import train

K, STEPS = 21, 10  # K is no multiple of N: the write wraps


def reading(
    start: dict, queue: torch.Tensor, batches: list, head: str, tau: float, lrs: list[float], m: float, symmetric: bool
):
    """Algorithm 1 of arXiv:1911.05722 with Shuffling BN; symmetric: both directions, one update, both enqueued."""
    theta_q = {name: x.clone() for name, x in start.items()}
    theta_k = {name: x.clone() for name, x in start.items()}
    trained = [name for name in start if "running" not in name and "num_batches" not in name]
    velocity = {name: torch.zeros_like(start[name]) for name in trained}
    keys, losses = deque(queue.clone(), maxlen=K), []
    for step, (views, _) in enumerate(batches):
        for name in trained:
            theta_q[name] = theta_q[name].detach().requires_grad_()
        deal = torch.Generator().manual_seed(fold(SEED, step))
        loss, made = torch.zeros((), dtype=torch.float64), []
        ks = []
        for x_k in [views[1], views[0]][: 2 if symmetric else 1]:
            order = torch.randperm(N, generator=deal)
            with torch.no_grad():
                k = f(theta_k, x_k[order], head)
            ks.append(k[order.argsort()])
        for x_q, k in zip(views, ks, strict=False):
            q = f(theta_q, x_q, head)
            l_pos, l_neg = (q * k).sum(dim=1, keepdim=True), q @ torch.stack(list(keys)).T
            loss = loss + F.cross_entropy(torch.cat([l_pos, l_neg], dim=1) / tau, torch.zeros(N, dtype=torch.long))
            made += list(k)
        grads = torch.autograd.grad(loss, [theta_q[name] for name in trained])
        for name, grad in zip(trained, grads, strict=True):
            velocity[name] = 0.9 * velocity[name] + grad + 1e-4 * theta_q[name].detach()
            theta_q[name] = theta_q[name].detach() - lrs[step] * velocity[name]
            theta_k[name] = m * theta_k[name] + (1 - m) * theta_q[name]
        keys.extend(made)
        losses.append(loss.item())
    return losses, theta_q, theta_k, keys


CASES = {
    "v1": ("linear", 0.07, Steps(0.03, at=(1, 2)), [0.03] * 4 + [0.003] * 4 + [0.0003] * 2, False),
    "v2": ("mlp", 0.2, Cosine(0.03, whole_epochs=True), [0.03] * 4 + [0.0225] * 4 + [0.0075] * 2, False),
    "v2 symmetric": ("mlp", 0.2, Constant(0.03), [0.03] * 10, True),
}


@pytest.mark.parametrize("case", CASES)
def test_ten_steps_equal_an_independent_implementation_of_algorithm_1(case):
    head, tau, schedule, lrs, symmetric = CASES[case]
    torch.manual_seed(1)
    f_q = encoder(head)
    queue = Queue(K, 4).double()
    start, first_keys = {name: x.clone() for name, x in f_q.state_dict().items()}, queue.keys.clone()
    batches = [([torch.randn(N, 3, 6, 6).double() for _ in range(2)], torch.arange(N) + N * i) for i in range(STEPS)]
    expected, theta_q, theta_k, keys = reading(start, first_keys, batches, head, tau, lrs, 0.99, symmetric)

    contrast = Contrast(
        f_q, MomentumEncoder(f_q), queue, temperature=tau, bn_groups=GROUPS, symmetric=symmetric
    ).train()
    sgd = torch.optim.SGD(f_q.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    state = TrainState(contrast, sgd, Clock(steps_per_epoch=4, total_steps=12))
    losses = []
    train(
        contrast, state, batches, lr=schedule, m=Constant(0.99), seed=SEED,
        after_step=lambda state, metrics: losses.append(metrics["loss"].item()),
    )  # fmt: skip

    assert losses == pytest.approx(expected, rel=1e-10)
    for network, theta in ((f_q, theta_q), (contrast.key_encoder.module, theta_k)):
        for name, x in network.state_dict().items():
            if "num_batches" not in name:
                torch.testing.assert_close(x, theta[name].detach(), rtol=1e-9, atol=1e-12, msg=name)
    order = (queue.oldest + torch.arange(K)) % K
    torch.testing.assert_close(queue.keys[order], torch.stack(list(keys)), rtol=1e-9, atol=1e-12)


def test_the_comparison_detects_a_key_that_is_enqueued_before_it_is_looked_up(monkeypatch):
    """A planted fault: the positive among its own negatives must make the losses differ."""
    look_up, update = Queue.look_up, Queue.update

    def hasty(self, q, k, ids, rng):
        update(self, k, ids, 0)
        return look_up(self, q, k, ids, rng)

    monkeypatch.setattr(Queue, "look_up", hasty)
    monkeypatch.setattr(Queue, "update", lambda self, k, ids, step: None)  # not a second time
    with pytest.raises(AssertionError):
        test_ten_steps_equal_an_independent_implementation_of_algorithm_1("v1")
