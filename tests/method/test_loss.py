"""Eqn. (1) in blocks of keys is cross-entropy over the concatenated logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from moco.method import LookUp, info_nce
from moco.method.loss import compare


def operands(n=8, k=50, c=16, dtype=torch.float32, seed=0):
    rng = torch.Generator().manual_seed(seed)
    unit = lambda rows: F.normalize(torch.randn(rows, c, generator=rng, dtype=torch.float64), dim=1).to(dtype)  # noqa: E731
    return unit(n).requires_grad_(), unit(n), unit(k)


def cross_entropy(q, positive, keys, temperature):
    """The oracle: N x (1 + K) logits, the positive in column 0, in float64."""
    q = q.detach().double().requires_grad_()
    logits = torch.cat([(q * positive.double()).sum(1, keepdim=True), q @ keys.double().T], dim=1)
    loss = F.cross_entropy(logits / temperature, torch.zeros(len(q), dtype=torch.long))
    loss.backward()
    return loss.detach(), q.grad


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 20), k=st.integers(1, 200), block=st.integers(1, 64), seed=st.integers(0, 99),
    temperature=st.sampled_from([0.01, 0.07, 0.2, 1.0]),
)  # fmt: skip
def test_streamed_loss_and_gradient_equal_cross_entropy(n, k, block, seed, temperature):
    q, positive, keys = operands(n, k, seed=seed, dtype=torch.float64)
    loss = info_nce(LookUp(q, keys, positive=positive), temperature, block=block)
    loss.backward()
    expected, grad = cross_entropy(q, positive, keys, temperature)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(q.grad, grad, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.07, 0.2])
@pytest.mark.parametrize("k", [4096, 65536])
def test_float32_loss_is_within_1e_6_of_float64(k, temperature):
    q, positive, keys = operands(64, k, 128)
    loss = info_nce(LookUp(q, keys, positive=positive), temperature)
    loss.backward()
    expected, grad = cross_entropy(q, positive, keys, temperature)
    assert abs(loss.item() - expected.item()) / expected.item() < 1e-6
    assert (q.grad.double() - grad).norm() / grad.norm() < 1e-6


def test_all_keys_alike_cost_the_logarithm_of_their_number():
    one = F.normalize(torch.ones(1, 8), dim=1)
    loss = info_nce(LookUp(one.expand(4, 8), one.expand(99, 8), positive=one.expand(4, 8)), 0.07)
    assert loss.item() == pytest.approx(math.log(100), abs=1e-5)


def test_a_smaller_temperature_than_float32_can_exponentiate_is_still_exact():
    q, positive, keys = operands(4, 100, dtype=torch.float32)
    assert math.exp(1 / 0.005) > torch.finfo(torch.float32).max  # a plain softmax would overflow
    loss = info_nce(LookUp(q, keys, positive=positive), 0.005)
    assert loss.item() == pytest.approx(cross_entropy(q, positive, keys, 0.005)[0].item(), rel=1e-5)


def test_top1_is_the_share_of_queries_closest_to_their_own_key():
    q, positive, keys = operands(32, 20, 4)
    _, top1 = compare(LookUp(q, keys, positive=positive), 0.2, block=7)
    logits, column = LookUp(q, keys, positive=positive).logits()
    assert top1.item() == pytest.approx((logits.argmax(dim=1) == column).float().mean().item())
    assert 0 < top1.item() < 1


def test_in_batch_keys_give_the_same_loss_as_keys_beside_a_positive():
    q, positive, keys = operands(1, 9, 16, dtype=torch.float64)
    beside = info_nce(LookUp(q, keys, positive=positive), 0.2)
    within = info_nce(LookUp(q, torch.cat([positive, keys]), match=torch.tensor([0])), 0.2)
    torch.testing.assert_close(beside, within)


def test_gradient_scales_with_the_gradient_that_comes_in():
    q, positive, keys = operands()
    (3 * info_nce(LookUp(q, keys, positive=positive), 0.2)).backward()
    torch.testing.assert_close(q.grad.double(), 3 * cross_entropy(q, positive, keys, 0.2)[1], rtol=1e-5, atol=1e-7)


def test_keys_with_a_gradient_beside_a_positive_are_refused():
    q, positive, keys = operands()
    with pytest.raises(ValueError, match="no_grad"):
        info_nce(LookUp(q, keys.requires_grad_(), positive=positive), 0.2)
