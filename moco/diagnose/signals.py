"""Signals: functions of tensors that say something about an encoder without labels.

None of them predicts an accuracy. They compare a run with itself.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

WITHIN = 1e-4  # delta, which LiDAR adds to the within-image covariance (arXiv:2312.04000)
ROUNDS = 15  # of k-means


def spread(z: Float[Tensor, "n C"]) -> float:
    """sqrt(C) times the mean standard deviation of a dimension of unit vectors (SimSiam, arXiv:2011.10566, Fig. 2).

    0 if all are equal, 1 if they are uniform on the sphere.
    """
    return math.sqrt(z.shape[1]) * F.normalize(z.double()).std(dim=0, correction=0).mean().item()


def effective_rank(x: Float[Tensor, "n D"]) -> float:
    """exp of the entropy of the normalized singular values of the centred rows (RankMe, arXiv:2210.02885).

    RankMe does not centre. Without that, the mean of features after a ReLU looks like a collapse. 0 if all rows are
    equal up to rounding.
    """
    centred = x.double() - x.double().mean(dim=0)
    values = torch.linalg.svdvals(centred)
    rounding = torch.finfo(torch.float32).eps * x.double().norm()
    return _exp_entropy(values[values > rounding])


def lidar(a: Float[Tensor, "n C"], b: Float[Tensor, "n C"]) -> float:
    """The effective rank of linear discriminant analysis, with each image as a class (arXiv:2312.04000, Eqn. 1 to 4).

    S_b is the covariance of the means of the two views, S_w that of the views around them. The eigenvalues of
    S_w^(-1/2) S_b S_w^(-1/2) take the place of the singular values.
    """
    a, b = a.double(), b.double()
    means, half = (a + b) / 2, (a - b) / 2
    centred = means - means.mean(dim=0)
    between, within = centred.T @ centred / len(a), half.T @ half / len(a)
    within += WITHIN * torch.eye(len(within), dtype=within.dtype, device=within.device)
    root = torch.linalg.cholesky(within)  # whitening by any root of S_w gives the same eigenvalues
    whitened = torch.linalg.solve_triangular(root, between, upper=False)
    whitened = torch.linalg.solve_triangular(root, whitened.T, upper=False)
    return _exp_entropy(torch.linalg.eigvalsh((whitened + whitened.T) / 2).clamp(min=0))


def _exp_entropy(weights: Float[Tensor, "m"]) -> float:
    weights = weights[weights > 0]
    if not len(weights):
        return 0.0
    p = weights / weights.sum()
    return math.exp(-(p * p.log()).sum().item())


def mean_cosine(a: Float[Tensor, "n C"], b: Float[Tensor, "n C"]) -> float:
    """Mean cosine between corresponding rows."""
    return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(dim=1).mean().item()


def finds_own_key(
    q: Float[Tensor, "n C"],
    k: Float[Tensor, "n C"],
    ids: Int[Tensor, "n"],
    among: Float[Tensor, "m C"],
    owners: Int[Tensor, "m"],
) -> Bool[Tensor, "n"]:
    """Whether each query is closer to its own key than to any key of another image in `among`. Rows of unit length.

    Args:
        ids, owners: the images of the queries and of the keys in `among`.
    """
    others = (q @ among.T).masked_fill(ids[:, None] == owners, -torch.inf)
    return (q * k).sum(dim=1) > others.amax(dim=1)


def difference(a: Bool[Tensor, "n"], b: Bool[Tensor, "n"]) -> tuple[float, float]:
    """mean(a) - mean(b) of the same queries, and its standard error."""
    each = a.double() - b.double()
    return each.mean().item(), (each.std() / math.sqrt(len(each))).item()


def lag(key: nn.Module, now: nn.Module, at_first: nn.Module) -> float:
    """|theta_k - theta_q| / |theta_q - initial theta_q|: 0 if f_k equals f_q, about 1 if f_k has not moved."""
    k, q, first = (
        torch.cat([parameter.flatten() for parameter in network.parameters()]) for network in (key, now, at_first)
    )
    return ((k - q).norm() / (q - first).norm()).item()


def k_means(x: Float[Tensor, "n D"], clusters: int, *, seed: int = 0) -> tuple[Int[Tensor, "n"], Float[Tensor, "k D"]]:
    """The cluster of each row and the centres: k-means++ from a fixed seed, then Lloyd's algorithm. On the CPU."""
    x = x.float().cpu()
    rng = torch.Generator().manual_seed(seed)
    centres = x[torch.randint(len(x), (1,), generator=rng)]
    for _ in range(clusters - 1):
        nearest = torch.cdist(x, centres).amin(dim=1) ** 2
        weights = nearest if nearest.sum() > 0 else torch.ones_like(nearest)
        centres = torch.cat([centres, x[torch.multinomial(weights, 1, generator=rng)]])
    which = torch.cdist(x, centres).argmin(dim=1)
    for _ in range(ROUNDS):
        members = F.one_hot(which, clusters).to(x.dtype)  # n x k
        sizes = members.sum(dim=0)[:, None]
        centres = torch.where(sizes > 0, members.T @ x / sizes.clamp(min=1), centres)
        which = torch.cdist(x, centres).argmin(dim=1)
    return which, centres


def adjusted_mutual_information(a: Int[Tensor, "n"], b: Int[Tensor, "n"]) -> float:
    """AMI of two clusterings (Vinh et al., JMLR 2010): 1 if they are equal, 0 on average for independent ones.

    (I - E[I]) / (mean of both entropies - E[I]), where E is over clusterings of the same sizes.
    """
    n = len(a)
    table = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.double).index_put_(
        (a.cpu(), b.cpu()), torch.ones(n, dtype=torch.double), accumulate=True
    )
    table = table[table.sum(dim=1) > 0][:, table.sum(dim=0) > 0]
    rows, columns = table.sum(dim=1), table.sum(dim=0)
    information = (torch.special.xlogy(table, n * table / torch.outer(rows, columns)) / n).sum()
    entropies = [-(torch.special.xlogy(sizes / n, sizes / n)).sum() for sizes in (rows, columns)]
    expected = _expected_information(rows, columns, n)
    room = sum(entropies, torch.zeros(())) / 2 - expected
    if min(table.shape) == 1 and max(table.shape) == 1:  # both have a single cluster
        return 1.0
    return ((information - expected) / room).item() if abs(room) > 1e-12 else 0.0


def _expected_information(rows: Float[Tensor, "r"], columns: Float[Tensor, "c"], n: int) -> Float[Tensor, ""]:
    """E[I]: the sum over all possible n_ij, weighted by the hypergeometric distribution."""
    a, b = rows[:, None, None], columns[None, :, None]
    most = int(min(rows.max(), columns.max()))
    nij = torch.arange(1, most + 1, dtype=torch.double)[None, None]
    possible = (nij <= torch.minimum(a, b)) & (nij >= a + b - n)

    def log_factorial(x: Tensor) -> Tensor:
        return torch.lgamma(x.clamp(min=0) + 1)

    log_p = (
        log_factorial(a) + log_factorial(b) + log_factorial(n - a) + log_factorial(n - b)
        - log_factorial(torch.tensor(float(n), dtype=torch.double)) - log_factorial(nij) - log_factorial(a - nij)
        - log_factorial(b - nij) - log_factorial(n - a - b + nij)
    )  # fmt: skip
    return torch.where(possible, nij / n * (n * nij / (a * b)).log() * log_p.exp(), 0.0).sum()


def separability(x: Float[Tensor, "n D"], clusters: int) -> float:
    """How well k-means clusters of the rows are apart: mean of 1 - (distance to the own centre) / (to the next one).

    The simplified silhouette. 0 without clusters, 1 if every row is at its centre.
    """
    _, centres = k_means(x, clusters)
    distances = torch.cdist(x.float().cpu(), centres)
    nearest = distances.topk(2, dim=1, largest=False).values
    return (1 - nearest[:, 0] / nearest[:, 1].clamp(min=1e-12)).mean().item()


def own_negatives(keys: int, images: int, same: float, *, of_dictionary: str) -> float:
    """The number of a query's negatives that show its own picture, on average over an epoch.

    Images are drawn without replacement in an epoch. With rho = K / N, a queue of K keys has rho^2 / 2 other keys of
    the query's own image for rho <= 1, and rho - 1/2 above. A bank draws with replacement, so rho. A mini-batch has
    none. In addition, each key is of another file with the same picture with the probability `same`.
    """
    rho = keys / images
    own = {"queue": rho**2 / 2 if rho <= 1 else rho - 0.5, "bank": rho, "batch": 0.0}[of_dictionary]
    return own + keys * same
