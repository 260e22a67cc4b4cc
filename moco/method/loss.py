"""Eqn. (1): InfoNCE, with temporary memory independent of the size of the dictionary; and NCE, its predecessor.

Notation: N queries, C dimensions, M keys that all queries are compared with, tau the temperature.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from moco.distributed import gather

LOG2_E = math.log2(math.e)  # exp(x) = exp2(x LOG2_E), which takes a third of the time on a CPU
BLOCK = 1024  # keys
SMALLEST_UNSHIFTED = 1 / 64  # tau: exp(64) times a billion keys does not overflow float32, and exp(-64) is not denormal


class LookUp(NamedTuple):
    """The operands of Eqn. (1) for one mini-batch. The N x M logits are never stored."""

    q: Float[Tensor, "N C"]  # queries, of unit length
    keys: Float[Tensor, "M C"]  # the keys that all queries of the mini-batch are compared with
    positive: Float[Tensor, "N C"] | None = None  # each query's positive key, if it is not in `keys`
    match: Int[Tensor, "N"] | None = None  # otherwise the row of the positive in `keys`
    drawn: Int[Tensor, "N K"] | None = None  # if each query has its own negatives: their rows in `keys`
    owners: tuple[Int[Tensor, "N"], Int[Tensor, "M"]] | None = None  # the image, or group of
    # images, of each query and key. A key with the same owner as the query is none of its negatives

    def logits(self) -> tuple[Float[Tensor, "N L"], Int[Tensor, "N"]]:
        """q.k for every key (-inf if left out), and the column of the positive. For NCE, tests and small M."""
        rest = self.q @ self.keys.T if self.drawn is None else _dot(self.q, self.keys[self.drawn])
        if self.positive is None:
            assert self.match is not None, "a LookUp has either `positive` or `match`"
            own = F.one_hot(self.match, len(self.keys)).bool() if self.owners is not None else None
            return self._without_left_out(rest, own), self.match
        first = (self.q * self.positive).sum(dim=1, keepdim=True)  # N x 1
        zeros = torch.zeros(len(self.q), dtype=torch.long, device=self.q.device)
        return torch.cat([first, self._without_left_out(rest, None)], dim=1), zeros

    def _without_left_out(self, logits: Tensor, own: Bool[Tensor, "N M"] | None) -> Tensor:
        if self.owners is None:
            return logits
        of_queries, of_keys = self.owners
        same = of_queries[:, None] == (of_keys if self.drawn is None else of_keys[self.drawn])
        return logits.masked_fill(same if own is None else same & ~own, -math.inf)


def _block_for(look_up: LookUp) -> int:
    """The number of keys compared at a time: few fit a CPU's cache; on a GPU 128 MiB of logits keep kernels few."""
    on_cpu = look_up.q.device.type == "cpu"
    return BLOCK if on_cpu or look_up.drawn is not None else max(BLOCK, 2**25 // len(look_up.q))


def _dot(q: Float[Tensor, "N C"], keys: Float[Tensor, "N b C"]) -> Float[Tensor, "N b"]:
    """q.k for each query's own keys."""
    return torch.einsum("nc,nbc->nb", q, keys)


class Negatives(NamedTuple):
    """The keys of a LookUp without the positive; for `drawn` and `owners` see there."""

    keys: Float[Tensor, "M C"]
    drawn: Int[Tensor, "N K"] | None
    owners: tuple[Int[Tensor, "N"], Int[Tensor, "M"]] | None
    block: int  # keys compared at a time

    def blocks(self) -> Iterator[tuple[Tensor, Bool[Tensor, "N b"] | None]]:
        """One block at a time: keys b x C shared by all queries, or N x b x C if each has its own; and the left out."""
        if self.drawn is None:
            places = (slice(start, start + self.block) for start in range(0, len(self.keys), self.block))
        else:
            places = self.drawn.split(max(1, 16 * self.block // len(self.drawn)), dim=1)  # 16 x block x C numbers
        for some in places:
            yield self.keys[some], self._left_out(some)

    def _left_out(self, some: slice | Int[Tensor, "N b"]) -> Bool[Tensor, "N b"] | None:
        """Which of these keys have the query's own owner; None if every key counts."""
        if self.owners is None:
            return None
        of_queries, of_keys = self.owners
        return of_queries[:, None] == of_keys[some]


class Sums(NamedTuple):
    """The result of one pass over the keys, for each query. `total` and `mean` are divided by exp(shift)."""

    total: Float[Tensor, "N 1"]  # sum of exp(q.k / tau)
    mean: Float[Tensor, "N C"]  # sum of exp(q.k / tau) k
    shift: Float[Tensor, "N 1"]
    l_neg: Float[Tensor, "N 1"]  # the largest q.k / tau of a negative


def _sums_unshifted(scaled: Tensor, positive: Tensor, l_pos: Tensor, *, negatives: Negatives) -> Sums:
    """Without a shift: rows have unit length, so 1 / tau bounds every logit and exp does not overflow."""
    l_neg, buffer, scaled = torch.full_like(l_pos, -math.inf), _logits_buffer(scaled, negatives), scaled * LOG2_E
    total = torch.exp(l_pos)
    mean = total * positive
    for some, left_out in negatives.blocks():
        logits = _block_logits(scaled, some, left_out, buffer)  # scaled by log2(e), for exp2
        l_neg = torch.maximum(l_neg, logits.amax(dim=1, keepdim=True))
        weight = logits.exp2_()
        total.add_(weight.sum(dim=1, keepdim=True))
        _add_weighted(mean, weight, some)
    return Sums(total, mean, torch.zeros_like(total), l_neg / LOG2_E)


def _sums_shifted(scaled: Tensor, positive: Tensor, l_pos: Tensor, *, negatives: Negatives) -> Sums:
    """Shifted by a running maximum as in flash attention (arXiv:2205.14135), for temperatures where exp overflows."""
    l_neg, buffer = torch.full_like(l_pos, -math.inf), _logits_buffer(scaled, negatives)
    total, mean, shift = torch.ones_like(l_pos), positive.clone(), l_pos
    for some, left_out in negatives.blocks():
        logits = _block_logits(scaled, some, left_out, buffer)
        l_neg = torch.maximum(l_neg, logits.amax(dim=1, keepdim=True))
        old, shift = shift, torch.maximum(shift, l_neg)
        weight, rescale = logits.sub_(shift).exp_(), torch.exp(old - shift)
        total = total.mul_(rescale).add_(weight.sum(dim=1, keepdim=True))
        mean = _add_weighted(mean.mul_(rescale), weight, some)
    return Sums(total, mean, shift, l_neg)


def _logits_buffer(scaled: Tensor, negatives: Negatives) -> Float[Tensor, "N b"]:
    """Memory for the logits of a block, reused for every block."""
    return scaled.new_empty(len(scaled), min(negatives.block, len(negatives.keys)))


def _block_logits(q: Tensor, some: Tensor, left_out: Tensor | None, buffer: Tensor) -> Float[Tensor, "N b"]:
    """q.k for a block of keys, -inf if left out; written into `buffer` if all queries share the keys."""
    logits = torch.mm(q, some.T, out=buffer[:, : len(some)]) if some.ndim == 2 else _dot(q, some)
    return logits if left_out is None else logits.masked_fill_(left_out, -math.inf)


def _add_weighted(mean: Tensor, weight: Float[Tensor, "N b"], some: Tensor) -> Tensor:
    """Add weight x keys of the block to `mean`, in place."""
    return mean.addmm_(weight, some) if some.ndim == 2 else mean.add_(torch.einsum("nb,nbc->nc", weight, some))


class Summed(torch.autograd.Function):
    """Eqn. (1) from sums over keys that take no gradient. The N x M logits are not stored.

    Softmax over the dictionary is attention with values = keys, so one pass gives both the loss and its gradient
    (E[k] - k+) / tau. The backward pass only multiplies; it cannot be differentiated again.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, q: Tensor, positive: Tensor, temperature: float, sums_of: Callable[[Tensor, Tensor, Tensor], Sums]
    ) -> tuple[Tensor, Tensor]:
        scaled = q / temperature
        l_pos = (scaled * positive).sum(dim=1, keepdim=True)
        sums = sums_of(scaled, positive, l_pos)
        ctx.save_for_backward((sums.mean / sums.total - positive) / (temperature * len(q)))
        top1 = (l_pos > sums.l_neg).float().mean()
        ctx.mark_non_differentiable(top1)
        return (sums.total.log() + sums.shift - l_pos).mean(), top1

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        return grads[0] * ctx.saved_tensors[0], None, None, None


def compare(
    look_up: LookUp, temperature: float, *, block: int | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of Eqn. (1), and the share of queries that are closer to their own key than to any other."""
    if look_up.positive is not None:
        if look_up.keys.requires_grad or look_up.positive.requires_grad:
            raise ValueError(
                "expected keys and a separate positive without gradient: compute them under torch.no_grad()"
            )
        one_pass = _sums_unshifted if temperature >= SMALLEST_UNSHIFTED else _sums_shifted
        negatives = Negatives(look_up.keys, look_up.drawn, look_up.owners, block or _block_for(look_up))
        sums_of = partial(one_pass, negatives=negatives)  # memory N x block, for any M
        return Summed.apply(look_up.q, look_up.positive, temperature, sums_of)  # pyright: ignore[reportReturnType]
    logits, match = look_up.logits()  # N x M with M = the mini-batch: small, and the keys may require gradient
    return F.cross_entropy(logits / temperature, match), (logits.argmax(dim=1) == match).float().mean()


def info_nce(look_up: LookUp, temperature: float, *, block: int | None = None) -> Float[Tensor, ""]:
    """InfoNCE, Eqn. (1): the log loss of telling each query's own key from all others, averaged over the queries.

        L_q = -log( exp(q.k+ / tau) / sum_i exp(q.k_i / tau) )

    Args:
        look_up: queries and keys of unit length, in float32 or float64.
        temperature: tau.
        block: number of keys compared at a time; None: 1,024 on a CPU, more on a GPU. Memory is N x block.
    """
    return compare(look_up, temperature, block=block)[0]


class NCE(nn.Module):
    """Noise-contrastive estimation, the loss of the first memory bank (arXiv:1805.01978, Eqn. 4 to 8).

    A binary classification of each key: the query's own, or one of K noise keys. With n images, noise uniform over
    them, and P(i | q) = exp(q.k_i / tau) / Z:

        h = P / (P + K / n)        L_q = -log h(own) - sum over the noise keys of log(1 - h)

    Z normalizes P. A mini-batch estimates it as n mean(exp(q.k / tau)) over all q.k. The authors' code keeps the
    estimate of the first mini-batch. Here Z is an exponential average of the estimates (momentum 0.99, updated before
    it is used), which K. He names as the remedy for their lower accuracy. Z takes no gradient.
    """

    def __init__(self, num_samples: int, *, momentum: float = 0.99):
        super().__init__()
        self.num_samples, self.momentum = num_samples, momentum
        self.register_buffer("z", torch.zeros(()))  # 0: no mini-batch yet

    def forward(self, look_up: LookUp, temperature: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """As `compare`. Needs the whole mini-batch at once: Z is estimated from all its queries, on all ranks."""
        logits, match = look_up.logits()
        logits = logits / temperature
        estimate = self.num_samples * gather(logits.detach().exp().mean()[None]).mean()
        self.z.copy_(torch.where(self.z == 0, estimate, self.momentum * self.z + (1 - self.momentum) * estimate))
        noise = (logits.shape[1] - 1) / self.num_samples  # K / n
        odds = logits - (self.z * noise).log()  # log of P / (K / n), so h = sigmoid(odds)
        own = F.one_hot(match, logits.shape[1]).bool()
        loss = F.softplus(torch.where(own, -odds, odds)).sum(dim=1).mean()
        return loss, (logits.argmax(dim=1) == match).float().mean()

    z: Tensor
