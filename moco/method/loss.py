"""Eqn. (1): InfoNCE, in memory that does not grow with the dictionary; and NCE, its forerunner.

Notation: N queries, C dimensions, M keys that all queries are compared with, tau the temperature.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from moco.distributed import gather

LOG2_E = math.log2(math.e)  # exp(x) = exp2(x LOG2_E), which takes a third of the time on a CPU
SMALLEST_PLAIN = 1 / 64  # tau: exp(64) times a billion keys is still a number in float32, and exp(-64) a normal one


class LookUp(NamedTuple):
    """A mini-batch beside the dictionary: the operands of Eqn. (1), never its N x M logits."""

    q: Float[Tensor, "N C"]  # queries, of unit length
    keys: Float[Tensor, "M C"]  # the keys that all queries of the mini-batch are compared with
    positive: Float[Tensor, "N C"] | None = None  # each query's positive key, where it is not among `keys`,
    match: Int[Tensor, "N"] | None = None  # or else its row in `keys`
    drawn: Int[Tensor, "N K"] | None = None  # where each query has negatives of its own: their rows in `keys`

    def logits(self) -> tuple[Float[Tensor, "N L"], Int[Tensor, "N"]]:
        """q.k for every key, and the column of the positive. For NCE, tests, monitors and small M."""
        if self.positive is None:
            assert self.match is not None, "a LookUp has either `positive` or `match`"
            return self.q @ self.keys.T, self.match
        first = (self.q * self.positive).sum(dim=1, keepdim=True)  # N x 1
        rest = self.q @ self.keys.T if self.drawn is None else _dot(self.q, self.keys[self.drawn])
        zeros = torch.zeros(len(self.q), dtype=torch.long, device=self.q.device)
        return torch.cat([first, rest], dim=1), zeros


def _dot(q: Float[Tensor, "N C"], keys: Float[Tensor, "N b C"]) -> Float[Tensor, "N b"]:
    """q.k for each query's own keys."""
    return torch.einsum("nc,nbc->nb", q, keys)


def _blocks(keys: Tensor, drawn: Tensor | None, block: int) -> Iterator[Tensor]:
    """The keys a block at a time: b x C for all queries, or N x b x C where each has its own."""
    if drawn is None:
        yield from keys.split(block)
    else:
        for some in drawn.split(max(1, 16 * block // len(drawn)), dim=1):  # some 16 x block x C numbers
            yield keys[some]


class Sums(NamedTuple):
    """What one pass over the keys leaves, for each query; exp(shift) is taken out of the first two."""

    total: Float[Tensor, "N 1"]  # sum of exp(q.k / tau)
    mean: Float[Tensor, "N C"]  # the same sum, weighted with the keys
    shift: Float[Tensor, "N 1"]
    l_neg: Float[Tensor, "N 1"]  # the largest q.k / tau of a negative


def _plain(scaled: Tensor, positive: Tensor, l_pos: Tensor, *, keys: Tensor, drawn: Tensor | None, block: int) -> Sums:
    """Rows have unit length, so 1 / tau bounds every logit: nothing overflows, and nothing is shifted or rescaled."""
    l_neg, room, scaled = torch.full_like(l_pos, -math.inf), _room(scaled, keys, block), scaled * LOG2_E
    total = torch.exp(l_pos)
    mean = total * positive
    for some in _blocks(keys, drawn, block):
        logits = _against(scaled, some, room)  # to the base 2
        l_neg = torch.maximum(l_neg, logits.amax(dim=1, keepdim=True))
        weight = logits.exp2_()
        total.add_(weight.sum(dim=1, keepdim=True))
        _add_weighted(mean, weight, some)
    return Sums(total, mean, torch.zeros_like(total), l_neg / LOG2_E)


def _running_shift(
    scaled: Tensor, positive: Tensor, l_pos: Tensor, *, keys: Tensor, drawn: Tensor | None, block: int
) -> Sums:
    """With a running maximum, as in flash attention (arXiv:2205.14135), for temperatures where the bound is too far."""
    l_neg, room = torch.full_like(l_pos, -math.inf), _room(scaled, keys, block)
    total, mean, shift = torch.ones_like(l_pos), positive.clone(), l_pos
    for some in _blocks(keys, drawn, block):
        logits = _against(scaled, some, room)
        l_neg = torch.maximum(l_neg, logits.amax(dim=1, keepdim=True))
        old, shift = shift, torch.maximum(shift, l_neg)
        weight, rescale = logits.sub_(shift).exp_(), torch.exp(old - shift)
        total = total.mul_(rescale).add_(weight.sum(dim=1, keepdim=True))
        mean = _add_weighted(mean.mul_(rescale), weight, some)
    return Sums(total, mean, shift, l_neg)


def _room(scaled: Tensor, keys: Tensor, block: int) -> Float[Tensor, "N b"]:
    """Where the logits of one block after the other are."""
    return scaled.new_empty(len(scaled), min(block, len(keys)))


def _against(q: Tensor, some: Tensor, room: Tensor) -> Float[Tensor, "N b"]:
    """q.k for a block of keys; over and over in the same memory, `room`, where all queries share them."""
    return torch.mm(q, some.T, out=room[:, : len(some)]) if some.ndim == 2 else _dot(q, some)


def _add_weighted(mean: Tensor, weight: Float[Tensor, "N b"], some: Tensor) -> Tensor:
    """Add the block's keys, weighted, in place."""
    return mean.addmm_(weight, some) if some.ndim == 2 else mean.add_(torch.einsum("nb,nbc->nc", weight, some))


class Summed(torch.autograd.Function):
    """Eqn. (1) from sums over keys that take no gradient: no N x M logits are kept.

    Softmax over the dictionary is attention with values = keys: one pass gives the loss and its gradient
    (E[k] - k+) / tau. The backward pass is a multiplication; it has no derivative of its own.
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


def compare(look_up: LookUp, temperature: float, *, block: int = 1024) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of Eqn. (1), and the share of queries that are closer to their own key than to any other."""
    if look_up.positive is not None:
        if look_up.keys.requires_grad or look_up.positive.requires_grad:
            raise ValueError("keys beside a separate positive must not require a gradient: they are made under no_grad")
        one_pass = _plain if temperature >= SMALLEST_PLAIN else _running_shift
        sums_of = partial(one_pass, keys=look_up.keys, drawn=look_up.drawn, block=block)  # memory N x block, whatever M
        return Summed.apply(look_up.q, look_up.positive, temperature, sums_of)  # pyright: ignore[reportReturnType]
    logits, match = look_up.logits()  # N x M, M the mini-batch: small, and its keys may carry gradient
    return F.cross_entropy(logits / temperature, match), (logits.argmax(dim=1) == match).float().mean()


def info_nce(look_up: LookUp, temperature: float, *, block: int = 1024) -> Float[Tensor, ""]:
    """InfoNCE, Eqn. (1): the log loss of telling each query's own key from all others, averaged over the queries.

        L_q = -log( exp(q.k+ / tau) / sum_i exp(q.k_i / tau) )

    Args:
        look_up: queries and keys of unit length, in float32 or float64.
        temperature: tau.
        block: keys compared at a time; memory is N x block.
    """
    return compare(look_up, temperature, block=block)[0]


class NCE(nn.Module):
    """Noise-contrastive estimation, the loss of the first memory bank (arXiv:1805.01978, Eqn. 4 to 8).

    Each key is judged by itself: is it the query's own, or noise, of which there are K for one? With n images, noise
    uniform over them, and P(i | q) = exp(q.k_i / tau) / Z:

        h = P / (P + K / n)        L_q = -log h(own) - sum over the drawn of log(1 - h)

    Z, which makes P a distribution, is estimated as n mean(exp(q.k / tau)) over all q.k of a mini-batch. The authors'
    code keeps the first mini-batch's; here the estimates' exponential average does (momentum 0.99), which K. He names
    as the cure of their lower accuracy. The current mini-batch enters before it is used. Z takes no gradient.
    """

    def __init__(self, num_samples: int, *, momentum: float = 0.99):
        super().__init__()
        self.num_samples, self.momentum = num_samples, momentum
        self.register_buffer("z", torch.zeros(()))  # 0: no mini-batch yet

    def forward(self, look_up: LookUp, temperature: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """As `compare`. The mini-batch must be whole: Z is of all its queries, on all ranks."""
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
