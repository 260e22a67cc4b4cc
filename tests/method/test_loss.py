"""Eqn. (1) in blocks of keys is cross-entropy over the concatenated logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from moco.method import NCE, LookUp, info_nce
from moco.method.loss import SMALLEST_UNSHIFTED, compare


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
def test_float32_loss_and_gradient_are_within_2e_7_of_float64(k, temperature):
    q, positive, keys = operands(64, k, 128)
    loss = info_nce(LookUp(q, keys, positive=positive), temperature)
    loss.backward()
    expected, grad = cross_entropy(q, positive, keys, temperature)
    assert abs(loss.item() - expected.item()) / expected.item() < 2e-7
    assert (q.grad.double() - grad).norm() / grad.norm() < 2e-7


@pytest.mark.parametrize("temperature", [SMALLEST_UNSHIFTED, 0.07])
@pytest.mark.parametrize("sign", [1, -1])
def test_with_equal_keys_the_loss_is_the_logarithm_of_their_number(sign, temperature):
    """The largest and the smallest logits there are: their exponentials must be numbers of float32."""
    one = F.normalize(torch.ones(1, 8), dim=1)
    keys = sign * one.expand(99, 8)
    loss = info_nce(LookUp(one.expand(4, 8), keys, positive=keys[:4]), temperature)
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


def test_gradient_scales_with_the_incoming_gradient():
    q, positive, keys = operands()
    (3 * info_nce(LookUp(q, keys, positive=positive), 0.2)).backward()
    torch.testing.assert_close(q.grad.double(), 3 * cross_entropy(q, positive, keys, 0.2)[1], rtol=1e-5, atol=1e-7)


def test_keys_with_a_gradient_beside_a_positive_are_refused():
    q, positive, keys = operands()
    with pytest.raises(ValueError, match="no_grad"):
        info_nce(LookUp(q, keys.requires_grad_(), positive=positive), 0.2)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 8), k=st.integers(1, 60), block=st.integers(1, 16), seed=st.integers(0, 99))
def test_negatives_for_each_query_equal_cross_entropy_row_by_row(n, k, block, seed):
    q, positive, keys = operands(n, 30, seed=seed, dtype=torch.float64)
    drawn = torch.randint(30, (n, k), generator=torch.Generator().manual_seed(seed))
    look_up = LookUp(q, keys, positive=positive, drawn=drawn)
    loss = info_nce(look_up, 0.2, block=block)
    loss.backward()
    rows = [cross_entropy(q[i : i + 1], positive[i : i + 1], keys[drawn[i]], 0.2) for i in range(n)]
    torch.testing.assert_close(loss.detach(), torch.stack([row for row, _ in rows]).mean(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(q.grad, torch.cat([grad for _, grad in rows]) / n, rtol=1e-7, atol=1e-10)
    logits, match = look_up.logits()
    torch.testing.assert_close(F.cross_entropy(logits / 0.2, match).detach(), loss.detach(), rtol=1e-9, atol=1e-12)


def nce_by_hand(q, positive, keys, *, n, z, tau):
    """Eqn. (5) to (7) of arXiv:1805.01978, one query and one key at a time; negatives weighted as drawn ones."""
    k, loss = len(keys), 0.0
    for one, own in zip(q.tolist(), positive.tolist(), strict=True):
        dot = lambda key, one=one: math.exp(sum(a * b for a, b in zip(one, key, strict=True)) / tau) / z  # noqa: E731
        h = lambda p: p / (p + k / n)  # noqa: E731
        loss += -math.log(h(dot(own))) - sum(math.log(1 - h(dot(key))) for key in keys.tolist())
    return loss / len(q)


def test_nce_equals_the_equations_with_z_from_the_first_mini_batch_and_then_its_average():
    nce, n, z = NCE(500).double(), 500, None
    for seed in range(3):
        q, positive, keys = operands(4, 12, seed=seed, dtype=torch.float64)
        logits = torch.cat([(q * positive).sum(1, keepdim=True), q @ keys.T], dim=1).detach() / 0.1
        estimate = n * logits.exp().mean().item()
        z = estimate if z is None else 0.99 * z + 0.01 * estimate
        loss, _ = nce(LookUp(q, keys, positive=positive), 0.1)
        assert nce.z.item() == pytest.approx(z, rel=1e-12)
        assert loss.item() == pytest.approx(nce_by_hand(q, positive, keys, n=n, z=z, tau=0.1), rel=1e-10)


def test_gradient_of_nce_is_that_of_the_equations_with_constant_z():
    q, positive, keys = operands(3, 5, dtype=torch.float64)
    nce = NCE(50).double()
    loss, _ = nce(LookUp(q, keys, positive=positive), 0.2)
    loss.backward()
    z, step = nce.z.item(), 1e-6
    for i, j in ((0, 0), (1, 7), (2, 15)):
        ends = []
        for sign in (1, -1):
            moved = q.detach().clone()
            moved[i, j] += sign * step
            ends.append(nce_by_hand(moved, positive, keys, n=50, z=z, tau=0.2))
        assert q.grad[i, j].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-9)


def test_nce_of_equal_keys_is_its_collapse_level():
    one = F.normalize(torch.ones(1, 8, dtype=torch.float64), dim=1)
    loss, _ = NCE(1000).double()(LookUp(one.expand(4, -1), one.expand(64, -1), positive=one.expand(4, -1)), 0.07)
    assert loss.item() == pytest.approx(math.log(65) + 64 * math.log(65 / 64), rel=1e-12)  # h = 1 / (K + 1)
