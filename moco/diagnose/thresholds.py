"""Thresholds: the values of signals at which a verdict is given."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """When a signal counts. docs/diagnose.md has the values that planted faults and healthy runs gave."""

    collapsed: float = 0.1  # spread, at most. Random directions have 1 (SimSiam, arXiv:2011.10566, Fig. 2)
    errors: float = 3.0  # standard errors of a difference, at least
    by_chance: int = 2  # own keys found in the whole probe set, at most; 1 is expected. A healthy v3 has 5 at 20 %
    alike: float = 0.5  # spread, below which so few own keys are a collapse: constant images have 0.06 to 0.35
    large: int = 512  # images of a probe set in which so few are not by chance
    leak: float = 0.5  # share of the own keys that are lost with BN apart. Planted 0.7, shuffled in two groups 0.2
    own_negatives: float = 0.5  # keys of a query's own picture: K equals the number of pictures, rho - 1/2
    copies: float = 0.5  # different pictures / images, at most
    learned: float = 1.5  # own keys found, relative to the start, at least
    stale: float = 3.0  # own keys found among stored keys, relative to new keys, at least
    follows: float = 0.98  # cosine of f_q and f_k, from which on f_k hardly averages
    lags: float = 0.5  # the same cosine, below which f_k is far behind
    update: float = 0.01  # |change| / |weights| in a step. About 0.001 is usual (cs231n.github.io/neural-networks-3)
    steady: float = 0.8  # cosine of queries with running and with batch statistics. Healthy runs have 0.92 to 0.99
    rank_of_best: float = 0.5  # effective rank, relative to its maximum after `settled`. A healthy v3 has 0.7
    settled: float = 0.3  # of the run, in which the rank may fall freely
    rank_of_dim: float = 0.1  # effective rank, relative to the dimension (or to the probe set, if that is smaller)
    warm_up: float = 0.2  # of the run, in which only images and a collapse are judged
    waiting: float = 0.3  # share of the time that training waits for images
    middle: tuple[float, float] = (0.1, 0.6)  # of the run, in which the speed of the encoders is judged
    resolved: float = 0.25  # standard errors of own keys found, twice, relative to them, at most, for a plateau
    recent: float = 0.25  # of the run, for "still learning" and "plateau"
    patches_of_best: float = 0.9  # effective rank of patches, relative to its maximum


VERDICT_THRESHOLDS = Thresholds()
