"""Algorithm 1 without the optimizer: encode queries and keys, look the queries up in a dictionary, compute the loss."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from moco.distributed import shuffle, shuffled_order, unshuffle, world_size
from moco.method.batchnorm import in_groups
from moco.method.dictionaries import Dictionary
from moco.method.loss import NCE, LookUp, compare
from moco.method.momentum import MomentumEncoder

Compare = Callable[[LookUp, float], tuple[Tensor, Tensor]]  # operands, tau -> loss, top1


class Part(NamedTuple):
    """A part of the mini-batch whose loss needs no other queries: a BN group, or one direction of a symmetric loss."""

    x_q: Float[Tensor, "P c H W"]  # of small crops: crops x P rows, in the order of the BN groups
    x_k: Float[Tensor, "P c H W"]
    k: Float[Tensor, "P C"] | None  # keys of x_k if they take no gradient; None: computed with the queries
    ids: Int[Tensor, "P"]
    groups: range  # the BN groups that its rows form
    weight: float  # of this part's mean loss in the loss of the mini-batch
    also: tuple[Float[Tensor, "P C"], ...] = ()  # small crops: further keys of its images, each a term of the loss
    crops: int = 0  # the number of small crops of each image; 0: x_q are queries whose keys `dictionary.update` takes


class PartResult(NamedTuple):
    """The result of one part."""

    loss: Float[Tensor, ""]  # weighted, so that the losses of all parts sum to that of the mini-batch
    k: Float[Tensor, "P C"]  # its keys and their images, for `dictionary.update` after the optimizer step
    ids: Int[Tensor, "P"]
    top1: Float[Tensor, ""]  # share of its queries that are closer to their own key than to any other


class Contrast(nn.Module):
    """Contrastive learning as dictionary look-up (Sec. 3.1).

    method                 key_encoder                dictionary   symmetric  predictor
    MoCo v1, v2 (Fig. 2c)  MomentumEncoder(encoder)   Queue        no         no
    MoCo v3                MomentumEncoder(encoder)   Batch        yes        MLP
    end-to-end (Fig. 2a)   encoder itself             Batch        no         no
    memory bank (Fig. 2b)  None: keys are past q      MemoryBank   no         no

    Args:
        encoder: f_q, images to embeddings N x C; normalized to unit length here.
        key_encoder: f_k, see the table.
        dictionary: what the queries are compared with.
        predictor: on top of f_q only.
        temperature: tau.
        symmetric: each view is the query once. The two losses are added, and the keys of both are enqueued.
        key_views: views that make the key of an image. k is the mean of their keys, of unit length again.
        shuffle_bn: Shuffling BN (Sec. 3.3). An error with one BN group on one device, where it would do nothing.
        dealt: the views of the keys come shuffled already (see `DealtLoader`), so no rank sends images.
        bn_groups: number of parts of this rank's mini-batch, each with its own BN statistics.
        one_pass: the encoders run once over all BN groups, whose statistics their BN layers keep apart (see `grouped`);
            otherwise one group at a time, in the memory of one group.
        loss: maps a LookUp and tau to the loss: InfoNCE (`compare`), or an `NCE`.
        loss_scale: multiplies the loss.
    """

    def __init__(
        self,
        encoder: nn.Module,
        key_encoder: nn.Module | None,
        dictionary: Dictionary,
        *,
        predictor: nn.Module | None = None,
        temperature: float = 0.07,
        symmetric: bool = False,
        key_views: int = 1,
        shuffle_bn: bool = True,
        dealt: bool = False,
        bn_groups: int = 1,
        one_pass: bool = False,
        loss: Compare = compare,
        loss_scale: float = 1.0,
    ):
        super().__init__()
        if shuffle_bn and key_encoder is not None and bn_groups * world_size() == 1:
            raise ValueError(
                "shuffle_bn with one BN group on one device does nothing: key and query share BN statistics, and "
                "the encoder can cheat (Sec. 3.3). Set bn_groups=2 or more, or shuffle_bn=False"
            )
        self.encoder, self.key_encoder, self.dictionary = encoder, key_encoder, dictionary
        self.predictor = nn.Identity() if predictor is None else predictor
        self.temperature, self.symmetric, self.key_views = temperature, symmetric, key_views
        self.shuffle_bn, self.dealt = shuffle_bn, dealt
        self.bn_groups, self.one_pass, self.loss, self.loss_scale = bn_groups, one_pass, loss, loss_scale

    @property
    def directions(self) -> list[tuple[int, int]]:
        """(view of the query, view of the key) for each term of the loss."""
        return [(0, 1), (1, 0)] if self.symmetric else [(0, 1)]

    def parts(
        self, views: Sequence[Float[Tensor, "N c H W"]], ids: Int[Tensor, "N"], rng: torch.Generator
    ) -> list[Part]:
        """Split the mini-batch into parts that run forward and backward one after the other. Encodes momentum keys.

        Args:
            views: augmented views of each image: x_q, x_k, further views of the key (`key_views`), and small crops.
                A memory bank uses only the first.
            ids: the images' positions in the data set.
            rng: a CPU generator with the same state on every rank.
        """
        if len(ids) % self.bn_groups:
            raise ValueError(f"a mini-batch of {len(ids)} does not divide into {self.bn_groups} BN groups")
        whole = self.dictionary.whole or isinstance(self.loss, NCE) or self.one_pass
        count = 1 if whole else self.bn_groups  # parts for each direction
        each = self.bn_groups // count  # BN groups in a part
        parts: list[Part] = []
        keys, small = self.momentum_keys(views, rng), views[1 + self.key_views :]
        scale = self.loss_scale / (1 + len(small))  # the loss of an image is the mean over its queries
        for a, b in self.directions:
            x_q, x_k, k = views[a], views[b] if self.key_encoder is not None else views[a], keys.get(b)
            rows = zip(
                x_q.chunk(count), x_k.chunk(count), k.chunk(count) if k is not None else [None] * count,
                ids.chunk(count), strict=True,
            )  # fmt: skip
            for i, (some_q, some_k, key, some) in enumerate(rows):
                groups = range(i * each, (i + 1) * each)
                parts.append(Part(some_q, some_k, key, some, groups, weight=scale * len(some) / len(ids)))
        if small:  # multi-crop: further queries, with the same keys
            x = torch.cat(
                [rows for group in zip(*(x.chunk(self.bn_groups) for x in small), strict=True) for rows in group]
            )
            rows = zip(x.chunk(count), ids.chunk(count), *[k.chunk(count) for k in keys.values()], strict=True)
            for i, (some_q, some, key, *also) in enumerate(rows):
                groups, weight = range(i * each, (i + 1) * each), scale * len(some) / len(ids)
                parts.append(Part(some_q, some_q, key, some, groups, weight, tuple(also), crops=len(small)))
        return parts

    def forward(self, part: Part, rng: torch.Generator) -> PartResult:
        """The loss of one part, its keys, and its contrastive accuracy."""
        q = self.encode_queries(part.x_q, part.groups)
        k = part.k
        if k is None:  # end-to-end: with gradient; memory bank: this query is the next key
            k = q.detach() if self.key_encoder is None else self.encode_keys(part.x_k, rng)
        with torch.autocast(q.device.type, enabled=False):  # in float32: at tau = 0.07, bf16 is too coarse
            terms = [
                self.loss(self.dictionary.look_up(one, key, part.ids, rng), self.temperature)  # Eqn. (1)
                for one in (_crops_of(q, part) if part.crops else [q])
                for key in (k, *part.also)
            ]
        losses, top1 = (torch.stack(values) for values in zip(*terms, strict=True))
        count = 0 if part.crops else len(k)
        return PartResult(part.weight * losses.sum(), k[:count].detach(), part.ids[:count], top1.mean())

    def momentum_keys(
        self, views: Sequence[Float[Tensor, "N c H W"]], rng: torch.Generator
    ) -> dict[int, Float[Tensor, "N C"]]:
        """The keys of the momentum encoder, by view; empty where keys are trained or are past queries.

        The order of the views affects the BN running statistics of f_k: x1 first in Algorithm 1 of v3, x2 first with a
        queue, as in the authors' CIFAR notebook.
        """
        if not isinstance(self.key_encoder, MomentumEncoder):
            return {}
        order = [b for _, b in self.directions]
        keys = {b: self.encode_keys(views[b], rng) for b in (sorted(order) if self.dictionary.whole else order)}
        further = [self.encode_keys(x, rng) for x in views[2 : 1 + self.key_views]]
        return {b: mean_key([k, *further]) for b, k in keys.items()}

    def encode_queries(self, x: Float[Tensor, "P c H W"], groups: range) -> Float[Tensor, "P C"]:
        """predictor(f_q(x)), normalized. `x` holds the BN groups `groups`."""
        return unit(self._encode(self.predictor, self._encode(self.encoder, x, groups), groups))

    def encode_keys(self, x: Float[Tensor, "N c H W"], rng: torch.Generator) -> Float[Tensor, "N C"]:
        """f_k(x), with Shuffling BN (Sec. 3.3): a key must not share its BN statistics with its own query."""
        assert self.key_encoder is not None
        order = None
        if self.shuffle_bn and self.dealt:
            order = shuffled_order(len(x) * world_size(), rng)
        elif self.shuffle_bn:
            x, order = shuffle(x, rng)
        k = unit(self._encode(self.key_encoder, x, range(self.bn_groups)))
        return k if order is None else unshuffle(k, order)

    def _encode(self, network: nn.Module, x: Tensor, groups: range) -> Tensor:
        """network(x). `x` holds the BN groups `groups`."""
        return network(x.clone()) if self.one_pass else in_groups(network, x, groups, self.bn_groups)

    def follow(self, m: float) -> None:
        """Eqn. (2), if the key encoder is a momentum encoder."""
        if isinstance(self.key_encoder, MomentumEncoder):
            self.key_encoder.follow(self.encoder, m)


def _crops_of(q: Float[Tensor, "rows C"], part: Part) -> tuple[Float[Tensor, "P C"], ...]:
    """The queries of each small crop, in the order of the images."""
    return q.unflatten(0, (len(part.groups), part.crops, -1)).transpose(0, 1).flatten(1, 2).unbind()


def mean_key(keys: Sequence[Float[Tensor, "N C"]]) -> Float[Tensor, "N C"]:
    """The mean of the keys of an image's views, scaled to unit length; of one view, its key."""
    return unit(torch.stack(tuple(keys)).mean(dim=0)) if len(keys) > 1 else keys[0]


def unit(x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Rows scaled to unit length, in float32 or wider even under autocast."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
