"""Fig. 2: what queries are compared with. Three dictionaries behind one interface: look up, then update."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from moco.distributed import gather, rank
from moco.method.loss import LookUp
from moco.rng import fold


class Owners(nn.Module):
    """Who a key is of: its image, or the group of its image. Keys of a query's own owner are left out of its negatives.

    Args:
        groups: the number of each image's group; None: every image is its own owner. Not in checkpoints.
    """

    groups: Tensor | None

    def __init__(self, groups: Int[Tensor, "n"] | None = None):
        super().__init__()
        self.register_buffer("groups", groups, persistent=False)

    def forward(self, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The owners of the images `ids`; -1: none (a random key, or one of an image that a resumed run lacks)."""
        if self.groups is None:
            return ids
        known = (ids >= 0) & (ids < len(self.groups))
        return torch.where(known, self.groups[ids.clamp(0, len(self.groups) - 1)], -1)


class Dictionary(nn.Module):
    """The keys that contrast with a query. Its tensors are persistent buffers, so they are in every checkpoint."""

    whole = False  # True: the queries of a mini-batch must be looked up together

    def __init__(self) -> None:
        super().__init__()
        self.owners: Owners | None = None  # whose keys are no negatives; None: every other key is one

    def look_up(
        self, q: Float[Tensor, "N C"], k: Float[Tensor, "N C"], ids: Int[Tensor, "N"], rng: torch.Generator
    ) -> LookUp:
        """The operands of the loss: queries `q` beside this dictionary, `k` the keys of the same images.

        Args:
            q, k: queries and keys of the mini-batch, of unit length.
            ids: the images' positions in the data set.
            rng: a CPU generator at the same state on every rank.
        """
        raise NotImplementedError

    def update(self, k: Float[Tensor, "N C"], ids: Int[Tensor, "N"], step: int) -> None:
        """Add the keys of the mini-batch, after the loss was computed without them."""
        raise NotImplementedError

    def _owners(
        self, of_queries: Int[Tensor, "N"], of_keys: Int[Tensor, "M"]
    ) -> tuple[Int[Tensor, "N"], Int[Tensor, "M"]] | None:
        """The owners of queries and keys, given by their images."""
        return None if self.owners is None else (self.owners(of_queries), self.owners(of_keys))


class Queue(Dictionary):
    """Fig. 2(c), MoCo: the keys of the preceding mini-batches, first in, first out (Sec. 3.2).

    Stores with each key its image and its step, which give its age and the other keys of the same image. The number of
    keys added at a time need not divide the size: the write wraps around.
    """

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))  # K x C; random until filled
        self.register_buffer("ids", torch.full((size,), -1))  # -1: a random key
        self.register_buffer("born", torch.full((size,), -1))  # step; -1: a random key
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))  # the row to be replaced next

    def look_up(self, q: Tensor, k: Tensor, ids: Tensor, rng: torch.Generator) -> LookUp:
        return LookUp(q, self.keys, positive=k, owners=self._owners(ids, self.ids))

    @torch.no_grad()
    def update(self, k: Tensor, ids: Tensor, step: int) -> None:
        k, ids = gather(k), gather(ids)  # every rank enqueues the same keys in the same order: the queues stay equal
        if len(k) > len(self.keys):
            raise ValueError(f"a queue of {len(self.keys)} keys cannot take {len(k)} at once: make it larger")
        rows = (self.oldest + torch.arange(len(k), device=k.device)) % len(self.keys)  # no host sync
        self.keys[rows], self.ids[rows], self.born[rows] = k, ids, torch.full_like(ids, step)
        self.oldest.add_(len(k)).remainder_(len(self.keys))

    keys: Tensor
    ids: Tensor
    born: Tensor
    oldest: Tensor


class Batch(Dictionary):
    """Fig. 2(a), end-to-end; also MoCo v3: the keys of the current mini-batch, from all ranks."""

    whole = True

    def look_up(self, q: Tensor, k: Tensor, ids: Tensor, rng: torch.Generator) -> LookUp:
        match = rank() * len(q) + torch.arange(len(q), device=q.device)
        owners = None if self.owners is None else self._owners(ids, gather(ids))
        return LookUp(q, gather(k), match=match, owners=owners)

    def update(self, k: Tensor, ids: Tensor, step: int) -> None:
        """Stores nothing."""


class MemoryBank(Dictionary):
    """Fig. 2(b): one key for each image of the data set, averaged over the epochs (arXiv:1805.01978).

    The positive is the image's own key from an earlier epoch. The negatives are drawn from the keys of all images with
    replacement, the query's own included (as in the authors' code).

    Args:
        num_samples: n, images in the data set; takes n x dim x 4 bytes.
        size: K, the number of negatives drawn.
        momentum: of a key when it is updated, once an epoch.
        shared: one draw for the mini-batch (MoCo, Sec. 3.4: "the dictionary for each mini-batch"); otherwise one for
            each query, as the authors' code does, which reads N x K keys a step.
    """

    def __init__(self, num_samples: int, size: int, dim: int, momentum: float = 0.5, *, shared: bool = True):
        super().__init__()
        self.size, self.momentum, self.shared = size, momentum, shared
        self.register_buffer("keys", F.normalize(torch.randn(num_samples, dim), dim=1))  # n x C

    def look_up(self, q: Tensor, k: Tensor, ids: Tensor, rng: torch.Generator) -> LookUp:
        if self.shared:
            drawn = self._draw(rng.initial_seed()).to(q.device, non_blocking=True)
            return LookUp(q, self.keys[drawn], positive=self.keys[ids], owners=self._owners(ids, drawn))
        drawn = torch.stack([self._draw(fold(rng.initial_seed(), image)) for image in ids.tolist()]).to(q.device)
        every = torch.arange(len(self.keys), device=q.device)
        return LookUp(q, self.keys, positive=self.keys[ids], drawn=drawn, owners=self._owners(ids, every))

    def _draw(self, seed: int) -> Int[Tensor, "K"]:
        """Rows of negatives: a function of the seed, so that all parts of a mini-batch, on all ranks, see the same."""
        return torch.randint(len(self.keys), (self.size,), generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def update(self, k: Tensor, ids: Tensor, step: int) -> None:
        k, ids = gather(k), gather(ids)
        same = (ids[:, None] == ids).to(k.dtype)  # for an image that occurs more than once, the mean of its embeddings
        k = (same @ k) / same.sum(dim=1, keepdim=True)
        self.keys[ids] = F.normalize(self.momentum * self.keys[ids] + (1 - self.momentum) * k, dim=1)

    keys: Tensor
