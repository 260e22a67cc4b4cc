"""k nearest neighbours of frozen features by cosine similarity, and what they vote for (InstDisc, arXiv:1805.01978)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from moco.evaluate.features import Features
from moco.recipe import RecipeError

K = 200  # neighbours: InstDisc and MoCo's CIFAR notebook
TEMPERATURE = 0.1  # MoCo's CIFAR notebook, InstDisc on CIFAR-10; InstDisc on ImageNet: 0.07
QUERIES, BANK = 1024, 16384  # rows compared at a time: 64 MiB of similarities, whatever n is


class Neighbours(NamedTuple):
    """The k nearest images of each query, the nearest first."""

    similarities: Float[Tensor, "n k"]
    indices: Int[Tensor, "n k"]  # into the bank


class Vote(NamedTuple):
    """What the neighbours say."""

    predictions: Int[Tensor, "n"]
    accuracy: float  # [percent] of the queries; NaN when their labels are unknown
    k: int  # neighbours asked: fewer than wanted when the bank has no more


def knn(
    train: Features, test: Features, *, k: int = K, temperature: float = TEMPERATURE, device: str | torch.device = "cpu"
) -> Vote:
    """Classify `test` by its k nearest images in `train`. k = 1 is plain nearest neighbour.

    Raises:
        DataError: features without labels. RecipeError: k or temperature out of range.
    """
    found = nearest(train.x, test.x, k=k, device=device)
    return vote(found, train, test, temperature=temperature)


def nearest(
    bank: Float[Tensor, "m D"], queries: Float[Tensor, "n D"], *, k: int, device: str | torch.device = "cpu"
) -> Neighbours:
    """The k rows of `bank` with the greatest cosine similarity to each query (all of them when k > m), on the CPU."""
    if k < 1:
        raise RecipeError(f"k must be at least 1 neighbour, got {k}")
    k = min(k, len(bank))
    parts = [_nearest_of_chunk(bank, chunk.to(device), k) for chunk in queries.split(QUERIES)]
    return Neighbours(torch.cat([part[0].cpu() for part in parts]), torch.cat([part[1].cpu() for part in parts]))


def _nearest_of_chunk(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    queries = F.normalize(queries)
    best = queries.new_empty(len(queries), 0)
    where = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), BANK):
        chunk = F.normalize(bank[start : start + BANK].to(queries.device))
        similarities, indices = (queries @ chunk.T).topk(min(k, len(chunk)))
        best, where = torch.cat([best, similarities], 1), torch.cat([where, indices + start], 1)
        best, kept = best.topk(min(k, best.shape[1]))
        where = where.gather(1, kept)
    return best, where


def vote(
    found: Neighbours, train: Features, test: Features, *, temperature: float = TEMPERATURE, k: int | None = None
) -> Vote:
    """Each neighbour votes for its class with weight exp(similarity / temperature); with `k`, only the nearest k do."""
    if not temperature > 0:
        raise RecipeError(f"the temperature of the kNN weights must be above 0, got {temperature}")
    labels = train.known_labels()
    similarities, indices = found.similarities[:, :k], found.indices[:, :k]
    weights = ((similarities - similarities[:, :1]) / temperature).exp()  # of the nearest: 1, so nothing overflows
    votes = torch.zeros(len(weights), int(labels.max()) + 1, dtype=weights.dtype)
    predictions = votes.scatter_add_(1, labels[indices], weights).argmax(dim=1)
    truth = test.labels
    accuracy = float("nan") if truth is None else 100 * (predictions == truth).double().mean().item()
    return Vote(predictions, accuracy, similarities.shape[1])
