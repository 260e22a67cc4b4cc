"""Weighted k-nearest-neighbour classification of frozen features by cosine similarity (InstDisc, arXiv:1805.01978)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from moco.evaluate.features import Features
from moco.evaluate.progress import Progress
from moco.recipe import RecipeError

KNN_K = 200  # neighbours: InstDisc and MoCo's CIFAR notebook
TEMPERATURE = 0.1  # MoCo's CIFAR notebook, InstDisc on CIFAR-10; InstDisc on ImageNet: 0.07
QUERIES, BANK = 512, 32768  # rows compared at a time: 64 MiB of similarities, whatever n is
QUERIES_ON_GPU, BANK_ON_GPU = 2048, 131072  # the same on a GPU: 1 GiB
VOTES = 2**24  # queries x classes whose votes are counted at a time: 64 MiB
GROUP = 8  # columns in a group of `_top_k`; 4 and 16 take a tenth longer


class Nearest(NamedTuple):
    """The k nearest images of each query, the nearest first."""

    similarities: Float[Tensor, "n k"]
    indices: Int[Tensor, "n k"]  # into the bank


class Vote(NamedTuple):
    """The classes that the neighbours vote for."""

    predictions: Int[Tensor, "n"]
    accuracy: float  # [percent] of the queries; NaN when their labels are unknown
    k: int  # neighbours that voted: fewer than requested if the bank is smaller


def knn(
    train: Features,
    test: Features,
    *,
    k: int = KNN_K,
    temperature: float = TEMPERATURE,
    device: str | torch.device = "cpu",
) -> Vote:
    """Classify `test` by its k nearest images in `train`. k = 1 is plain nearest neighbour.

    Raises:
        DataError: features without labels. RecipeError: k or temperature out of range.
    """
    found = nearest(train.x, test.x, k=k, device=device)
    return vote(found, train, test, temperature=temperature)


def nearest(
    bank: Float[Tensor, "m D"],
    queries: Float[Tensor, "n D"],
    *,
    k: int,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Nearest:
    """The k rows of `bank` with the greatest cosine similarity to each query (all of them when k > m), on the CPU."""
    if k < 1:
        raise RecipeError(f"k must be at least 1 neighbour, got {k}")
    on_cpu = torch.device(device).type == "cpu"
    at_once, rows_at_once = (QUERIES, BANK) if on_cpu else (QUERIES_ON_GPU, BANK_ON_GPU)
    k, chunks = min(k, len(bank)), queries.split(at_once)
    best = [_top_k(chunk.new_empty(len(chunk), 0, device=device), k) for chunk in chunks]  # none yet
    starts, progress = range(0, len(bank), rows_at_once), progress or Progress()
    progress.expect(len(starts) * len(chunks), "blocks")
    for start in starts:
        rows = F.normalize(bank[start : start + rows_at_once].to(device))
        for i, chunk in enumerate(chunks):
            found = _top_k(F.normalize(chunk.to(device)) @ rows.T, k)
            best[i] = _merge_nearest(best[i], Nearest(found.similarities, found.indices + start), k)
            progress.add()
    return Nearest(*(torch.cat(column).cpu() for column in zip(*best, strict=True)))


def _top_k(similarities: Float[Tensor, "n m"], k: int) -> Nearest:
    """The k greatest of each row in descending order, as torch.topk, in two thirds of its time on a CPU.

    Columns are grouped by 8. The k greatest values all lie in the k groups with the greatest maxima: a value in another
    group is below the maximum of each of these k groups.
    """
    n, m = similarities.shape
    width = m // GROUP  # distance in columns between the members of a group
    if k > width or similarities.device.type != "cpu":
        return Nearest(*similarities.topk(min(k, m)))
    column = torch.arange(m, device=similarities.device)
    grouped, rest = column[: GROUP * width].view(GROUP, width), column[GROUP * width :]
    leading = similarities[:, : GROUP * width].view(n, GROUP, width).amax(dim=1).topk(k, sorted=False).indices
    members = torch.cat([grouped.T[leading].flatten(1), rest.expand(n, -1)], dim=1)
    best, which = similarities.gather(1, members).topk(k)
    return Nearest(best, members.gather(1, which))


def _merge_nearest(some: Nearest, more: Nearest, k: int) -> Nearest:
    """The k nearest of two sets of neighbours."""
    similarities, indices = (torch.cat(pair, dim=1) for pair in zip(some, more, strict=True))
    best, which = similarities.topk(min(k, similarities.shape[1]))
    return Nearest(best, indices.gather(1, which))


def vote(
    found: Nearest, train: Features, test: Features, *, temperature: float = TEMPERATURE, k: int | None = None
) -> Vote:
    """Each neighbour votes for its class with weight exp(similarity / temperature); with `k`, only the nearest k do."""
    if not temperature > 0:
        raise RecipeError(f"the temperature of the kNN weights must be above 0, got {temperature}")
    labels = train.known_labels()
    similarities, indices = found.similarities[:, :k], found.indices[:, :k]
    weights = ((similarities - similarities[:, :1]) / temperature).exp()  # of the nearest: 1, so nothing overflows
    classes = int(labels.max()) + 1
    rows = max(1, VOTES // classes)
    answers = []
    for some, chosen in zip(weights.split(rows), indices.split(rows), strict=True):
        votes = torch.zeros(len(some), classes, dtype=some.dtype)
        answers.append(votes.scatter_add_(1, labels[chosen], some).argmax(dim=1))
    predictions = torch.cat(answers)
    truth = test.labels
    accuracy = float("nan") if truth is None else 100 * (predictions == truth).double().mean().item()
    return Vote(predictions, accuracy, similarities.shape[1])
