"""Mini-batches larger than memory, where every query is compared with the keys of the whole mini-batch.

The loss needs all embeddings, but not all graphs. A first pass makes the embeddings without a graph, piece by piece;
the loss of them all gives its gradient by each embedding. A second pass makes them again, a piece at a time with its
graph, and sends that gradient back: by the chain rule the sum over the pieces is the gradient of the whole (the
"gradient cache" of arXiv:2101.06983). It costs a second forward pass.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moco.distributed import rank, shuffle, unshuffle
from moco.method.batchnorm import in_groups, still
from moco.method.contrast import Answer, Contrast, unit
from moco.rng import fold


class Piece(NamedTuple):
    """Some BN groups of the mini-batch, and what the first pass found out about them."""

    x_q: Float[Tensor, "P c H W"]
    x_k: Float[Tensor, "P c H W"]  # where keys are trained: rows as they were dealt out by Shuffling BN
    ids: Int[Tensor, "P"]
    groups: range
    seed: int  # for layers that draw by themselves: both passes must draw the same
    grad_q: Float[Tensor, "P C"]  # of the mini-batch's loss, by these queries
    grad_k: Float[Tensor, "P C"] | None  # and by these keys, where they are trained
    k: Float[Tensor, "P C"]
    loss: Float[Tensor, ""]  # this piece's share in the mini-batch's loss
    top1: Float[Tensor, ""]  # of the mini-batch


class CachedContrast(Contrast):
    """`Contrast` with the keys of the mini-batch (`Batch`), in memory of a piece: the same loss, the same gradient.

    BN's running statistics are the same too, but where queries and keys share an encoder: they come to it in turns.

    Args:
        pieces: in how many the mini-batch is cut; each is a whole number of BN groups, so BN sees the same images.
    """

    def __init__(self, *networks: Any, pieces: int, **settings: Any):
        super().__init__(*networks, **settings)
        if not self.dictionary.whole:
            raise ValueError("with keys from elsewhere each BN group goes backward by itself already: take Contrast")
        if self.bn_groups % pieces:
            raise ValueError(f"a piece must be a whole number of the {self.bn_groups} BN groups, got pieces={pieces}")
        self.pieces = pieces

    def parts(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, views: Sequence[Float[Tensor, "N c H W"]], ids: Int[Tensor, "N"], rng: torch.Generator
    ) -> list[Piece]:
        """The first pass."""
        torch.manual_seed(fold(rng.initial_seed(), rank(), len(views)))  # not a seed of any piece
        keys = self.momentum_keys(views, rng)
        return [piece for a, b in self.directions for piece in self._direction(views, ids, keys.get(b), rng, (a, b))]

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, part: Piece, rng: torch.Generator
    ) -> Answer:
        """The second pass, of one piece: its share of the loss in value, and its share of the gradient."""
        torch.manual_seed(part.seed)
        through = (self.encode_queries(part.x_q, part.groups) * part.grad_q).sum()
        if part.grad_k is not None:
            through = through + (self._encode_dealt(part.x_k, part.groups) * part.grad_k).sum()
        return Answer(part.loss + (through - through.detach()), part.k, part.top1)

    def _direction(
        self,
        views: Sequence[Float[Tensor, "N c H W"]],
        ids: Int[Tensor, "N"],
        k: Float[Tensor, "N C"] | None,
        rng: torch.Generator,
        direction: tuple[int, int],
    ) -> list[Piece]:
        """The pieces of one direction of the loss; `k` are its keys where they take no gradient."""
        x_q, x_k = (views[view] for view in direction)
        size = self.bn_groups // self.pieces
        groups = [range(i * size, (i + 1) * size) for i in range(self.pieces)]
        seeds = [fold(rng.initial_seed(), rank(), direction[0], i) for i in range(self.pieces)]
        order = None
        if k is None and self.shuffle_bn:
            x_k, order = shuffle(x_k, rng)
        q, dealt = self._without_graph(x_q, x_k if k is None else None, groups, seeds)
        k = dealt if k is None else k
        assert k is not None
        with torch.enable_grad(), torch.autocast(q.device.type, enabled=False):
            home = k if order is None else unshuffle(k, order)
            loss, top1 = self.loss(self.dictionary.look_up(q, home, ids, rng), self.temperature)  # Eqn. (1)
            loss = self.loss_scale * loss
            grads = torch.autograd.grad(loss, [q] if dealt is None else [q, dealt])
        grads_k = [None] * self.pieces if dealt is None else grads[1].chunk(self.pieces)
        rows = zip(
            x_q.chunk(self.pieces), x_k.chunk(self.pieces), ids.chunk(self.pieces), groups, seeds,
            grads[0].chunk(self.pieces), grads_k, home.detach().chunk(self.pieces), strict=True,
        )  # fmt: skip
        return [Piece(*row, loss=loss.detach() / self.pieces, top1=top1) for row in rows]

    @torch.no_grad()
    def _without_graph(
        self, x_q: Tensor, x_k: Tensor | None, groups: list[range], seeds: list[int]
    ) -> tuple[Tensor, Tensor | None]:
        """All queries, and all keys where they are trained, as leaves. BN's running statistics are left alone."""
        q: list[Tensor] = []
        k: list[Tensor] = []
        with still(self):
            for i, rows in enumerate(x_q.chunk(self.pieces)):
                torch.manual_seed(seeds[i])
                q.append(self.encode_queries(rows, groups[i]))
                if x_k is not None:
                    k.append(self._encode_dealt(x_k.chunk(self.pieces)[i], groups[i]))
        return torch.cat(q).requires_grad_(), torch.cat(k).requires_grad_() if k else None

    def _encode_dealt(self, x: Float[Tensor, "P c H W"], groups: range) -> Float[Tensor, "P C"]:
        """f_k(x) for rows that lie as BN is to see them."""
        assert isinstance(self.key_encoder, nn.Module)
        return unit(in_groups(self.key_encoder, x, groups, self.bn_groups))
