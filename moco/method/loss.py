"""Eqn. (1): InfoNCE, in memory that does not grow with the dictionary.

Notation: N queries, C dimensions, M keys that all queries are compared with, tau the temperature.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


class LookUp(NamedTuple):
    """A mini-batch beside the dictionary: the operands of Eqn. (1), never its N x M logits."""

    q: Float[Tensor, "N C"]  # queries, of unit length
    keys: Float[Tensor, "M C"]  # the keys that all queries of the mini-batch are compared with
    positive: Float[Tensor, "N C"] | None = None  # each query's positive key, where it is not among `keys`,
    match: Int[Tensor, "N"] | None = None  # or else its row in `keys`

    def logits(self) -> tuple[Float[Tensor, "N L"], Int[Tensor, "N"]]:
        """q.k for every key, and the column of the positive. For tests, monitors and small M."""
        if self.positive is None:
            assert self.match is not None, "a LookUp has either `positive` or `match`"
            return self.q @ self.keys.T, self.match
        first = (self.q * self.positive).sum(dim=1, keepdim=True)  # N x 1
        zeros = torch.zeros(len(self.q), dtype=torch.long, device=self.q.device)
        return torch.cat([first, self.q @ self.keys.T], dim=1), zeros


class _Streamed(torch.autograd.Function):
    """Eqn. (1) over keys without gradient, a block of keys at a time: memory N x block, whatever M.

    Softmax over the dictionary is attention with values = keys: one pass with a running maximum, as in flash attention
    (arXiv:2205.14135), gives the loss and its gradient (E[k] - k+) / tau. The backward pass is a multiplication; it
    has no derivative of its own.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, q: Tensor, positive: Tensor, keys: Tensor, temperature: float, block: int
    ) -> tuple[Tensor, Tensor]:
        scaled = q / temperature
        l_pos = (scaled * positive).sum(dim=1, keepdim=True)  # N x 1
        shift = l_pos  # N x 1: the largest logit so far
        total = torch.ones_like(l_pos)  # N x 1: sum of exp(logit - shift)
        mean = positive.clone()  # N x C: the same sum, weighted with the keys
        l_neg = torch.full_like(l_pos, -math.inf)  # N x 1: the largest logit of a negative
        for some in keys.split(block):
            logits = scaled @ some.T  # N x block
            l_neg = torch.maximum(l_neg, logits.amax(dim=1, keepdim=True))
            old, shift = shift, torch.maximum(shift, l_neg)
            weight = logits.sub_(shift).exp_()
            rescale = torch.exp(old - shift)
            total = total.mul_(rescale).add_(weight.sum(dim=1, keepdim=True))
            mean = mean.mul_(rescale).addmm_(weight, some)
        ctx.save_for_backward((mean / total - positive) / (temperature * len(q)))
        top1 = (l_pos > l_neg).float().mean()
        ctx.mark_non_differentiable(top1)
        return (total.log() + shift - l_pos).mean(), top1

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        return grads[0] * ctx.saved_tensors[0], None, None, None, None


def compare(look_up: LookUp, temperature: float, *, block: int = 4096) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of Eqn. (1), and the share of queries that are closer to their own key than to any other."""
    if look_up.positive is not None:
        if look_up.keys.requires_grad or look_up.positive.requires_grad:
            raise ValueError("keys beside a separate positive must not require a gradient: they are made under no_grad")
        return _Streamed.apply(look_up.q, look_up.positive, look_up.keys, temperature, block)  # pyright: ignore
    logits, match = look_up.logits()  # N x M, M the mini-batch: small, and its keys may carry gradient
    return F.cross_entropy(logits / temperature, match), (logits.argmax(dim=1) == match).float().mean()


def info_nce(look_up: LookUp, temperature: float, *, block: int = 4096) -> Float[Tensor, ""]:
    """InfoNCE, Eqn. (1): the log loss of telling each query's own key from all others, averaged over the queries.

        L_q = -log( exp(q.k+ / tau) / sum_i exp(q.k_i / tau) )

    Args:
        look_up: queries and keys, in float32 or float64.
        temperature: tau.
        block: keys compared at a time; memory is N x block.
    """
    return compare(look_up, temperature, block=block)[0]
