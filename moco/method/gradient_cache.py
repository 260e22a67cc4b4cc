"""Gradient caching (arXiv:2101.06983): in-batch keys for mini-batches whose graph does not fit into memory.

The loss needs all embeddings of the mini-batch at once, but not all graphs. The first pass computes the embeddings
piece by piece without a graph, then the loss of all and its gradient with respect to each embedding. The second pass
computes each piece again, with its graph, and backpropagates that gradient through it. By the chain rule the sum over
the pieces is the gradient of the whole mini-batch. The price is a second forward pass.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moco.distributed import rank, shuffle, unshuffle
from moco.method.batchnorm import frozen_statistics, in_groups
from moco.method.contrast import Contrast, PartResult, unit
from moco.rng import fold


class Piece(NamedTuple):
    """Some BN groups of the mini-batch, and the results of the first pass for them."""

    x_q: Float[Tensor, "P c H W"]
    x_k: Float[Tensor, "P c H W"]  # where keys are trained, in the order of Shuffling BN
    ids: Int[Tensor, "P"]
    groups: range
    seed: int  # both passes must draw the same random numbers (dropout, drop path)
    grad_q: Float[Tensor, "P C"]  # gradient of the mini-batch's loss with respect to these queries
    grad_k: Float[Tensor, "P C"] | None  # with respect to these keys, where they are trained
    k: Float[Tensor, "P C"]
    loss: Float[Tensor, ""]  # this piece's share of the mini-batch's loss
    top1: Float[Tensor, ""]  # of the mini-batch


class CachedContrast(Contrast):
    """`Contrast` with in-batch keys (`Batch`) and the memory of one piece: the same loss and the same gradient.

    BN's running statistics are the same too, except where queries and keys share one encoder: there the order of the
    updates differs, because queries and keys alternate piece by piece.

    Args:
        pieces: number of pieces. Each has a whole number of BN groups, so that BN sees the same images.
    """

    def __init__(self, *networks: Any, pieces: int, **settings: Any):
        super().__init__(*networks, **settings)
        if not self.dictionary.whole:
            raise ValueError(
                "expected a dictionary of in-batch keys (Batch). With others the backward pass runs one BN group at a "
                "time already: use Contrast"
            )
        if self.bn_groups % pieces:
            raise ValueError(f"a piece must be a whole number of the {self.bn_groups} BN groups, got pieces={pieces}")
        self.pieces = pieces

    def parts(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, views: Sequence[Float[Tensor, "N c H W"]], ids: Int[Tensor, "N"], rng: torch.Generator
    ) -> list[Piece]:
        """The first pass: the pieces of the mini-batch."""
        torch.manual_seed(fold(rng.initial_seed(), rank(), len(views)))  # differs from every piece's seed
        keys = self.momentum_keys(views, rng)
        return [piece for a, b in self.directions for piece in self._direction(views, ids, keys.get(b), rng, (a, b))]

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, part: Piece, rng: torch.Generator
    ) -> PartResult:
        """The second pass, for one piece. The loss has the value and the gradient of this piece's share."""
        torch.manual_seed(part.seed)
        surrogate = (self.encode_queries(part.x_q, part.groups) * part.grad_q).sum()
        if part.grad_k is not None:
            surrogate = surrogate + (self._encode_shuffled(part.x_k, part.groups) * part.grad_k).sum()
        return PartResult(part.loss + (surrogate - surrogate.detach()), part.k, part.ids, part.top1)

    def _direction(
        self,
        views: Sequence[Float[Tensor, "N c H W"]],
        ids: Int[Tensor, "N"],
        k: Float[Tensor, "N C"] | None,
        rng: torch.Generator,
        direction: tuple[int, int],
    ) -> list[Piece]:
        """The pieces of one direction of the loss. `k`: its keys, if they take no gradient."""
        x_q, x_k = (views[view] for view in direction)
        size = self.bn_groups // self.pieces
        groups = [range(i * size, (i + 1) * size) for i in range(self.pieces)]
        seeds = [fold(rng.initial_seed(), rank(), direction[0], i) for i in range(self.pieces)]
        order = None
        if k is None and self.shuffle_bn:
            x_k, order = shuffle(x_k, rng)
        q, k_leaf = self._without_graph(x_q, x_k if k is None else None, groups, seeds)
        k = k_leaf if k is None else k
        assert k is not None
        with torch.enable_grad(), torch.autocast(q.device.type, enabled=False):
            k_unshuffled = k if order is None else unshuffle(k, order)
            loss, top1 = self.loss(self.dictionary.look_up(q, k_unshuffled, ids, rng), self.temperature)  # Eqn. (1)
            loss = self.loss_scale * loss
            grads = torch.autograd.grad(loss, [q] if k_leaf is None else [q, k_leaf])
        grads_k = [None] * self.pieces if k_leaf is None else grads[1].chunk(self.pieces)
        rows = zip(
            x_q.chunk(self.pieces), x_k.chunk(self.pieces), ids.chunk(self.pieces), groups, seeds,
            grads[0].chunk(self.pieces), grads_k, k_unshuffled.detach().chunk(self.pieces), strict=True,
        )  # fmt: skip
        return [Piece(*row, loss=loss.detach() / self.pieces, top1=top1) for row in rows]

    @torch.no_grad()
    def _without_graph(
        self, x_q: Tensor, x_k: Tensor | None, groups: list[range], seeds: list[int]
    ) -> tuple[Tensor, Tensor | None]:
        """All queries, and all keys where they are trained, as leaf tensors. BN running statistics do not change."""
        q: list[Tensor] = []
        k: list[Tensor] = []
        with frozen_statistics(self):
            for i, rows in enumerate(x_q.chunk(self.pieces)):
                torch.manual_seed(seeds[i])
                q.append(self.encode_queries(rows, groups[i]))
                if x_k is not None:
                    k.append(self._encode_shuffled(x_k.chunk(self.pieces)[i], groups[i]))
        return torch.cat(q).requires_grad_(), torch.cat(k).requires_grad_() if k else None

    def _encode_shuffled(self, x: Float[Tensor, "P c H W"], groups: range) -> Float[Tensor, "P C"]:
        """f_k(x) for rows that are in the order of Shuffling BN already."""
        assert isinstance(self.key_encoder, nn.Module)
        return unit(in_groups(self.key_encoder, x, groups, self.bn_groups))
