"""Eqn. (1) by flex attention is cross-entropy over the concatenated logits."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from moco.method import LookUp, compare
from moco.method.attention_loss import compare_attended

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def operands(*, n: int = 32, k: int = 300, c: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    q, positive, keys = (F.normalize(torch.randn(rows, c, generator=rng), dim=1) for rows in (n, n, k))
    return q.requires_grad_(), F.normalize(positive + q.detach(), dim=1), keys


@pytest.mark.parametrize("temperature", [0.005, 0.07, 0.2, 1.0])
def test_loss_and_gradient_are_those_of_cross_entropy_in_float64(temperature: float) -> None:
    q, positive, keys = operands()
    loss, _ = compare_attended(LookUp(q, keys, positive=positive), temperature)
    loss.backward()
    exact = q.detach().double().requires_grad_()
    logits = torch.cat([(exact * positive).sum(dim=1, keepdim=True), exact @ keys.T.double()], dim=1)
    expected = F.cross_entropy(logits / temperature, torch.zeros(len(q), dtype=torch.long))
    (gradient,) = torch.autograd.grad(expected, exact)
    assert q.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    assert (q.grad - gradient).norm() / gradient.norm() < 1e-5


def test_top1_is_that_of_the_streamed_form() -> None:
    q, positive, keys = operands()
    _, top1 = compare_attended(LookUp(q, keys, positive=positive), 0.2)
    assert 0 < top1.item() < 1
    assert torch.equal(top1, compare(LookUp(q, keys, positive=positive), 0.2)[1])


def test_a_kernel_is_asked_for_one_image_with_one_head_and_its_logarithm_of_the_sum() -> None:
    """What a GPU's kernel would be called with; here it is read with a softmax."""
    q, positive, keys = operands()

    def kernel(query: Tensor, key: Tensor, value: Tensor, *, scale: float, return_aux: Any = None, return_lse=False):
        assert query.shape == (1, 1, 32, 16)
        assert key is value
        assert return_lse or return_aux.lse
        logits = scale * query @ key.transpose(-1, -2)
        found, lse = logits.softmax(dim=-1) @ value, logits.logsumexp(dim=-1)
        return found, lse if return_lse else flex.AuxOutput(lse=lse, max_scores=logits.amax(dim=-1))

    looked_up = LookUp(q, keys, positive=positive)
    torch.testing.assert_close(compare_attended(looked_up, 0.2, attention=kernel)[0], compare(looked_up, 0.2)[0])


@pytest.mark.parametrize("other", ["match", "drawn"])
def test_keys_that_are_not_the_same_for_all_queries_or_hold_the_positive_are_refused(other: str) -> None:
    q, positive, keys = operands()
    rows = torch.zeros(len(q), dtype=torch.long)
    looked_up = LookUp(q, keys, match=rows) if other == "match" else LookUp(q, keys, positive, drawn=rows[:, None])
    with pytest.raises(ValueError, match=r"use moco\.method\.compare"):
        compare_attended(looked_up, 0.2)
