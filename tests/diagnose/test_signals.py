"""Signals against equations and other libraries, on tensors whose answer is known."""

import math

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score
from torch import nn

from moco.diagnose import signals
from moco.method.contrast import unit


def orthogonal(n: int, rank: int, *, seed: int = 0) -> torch.Tensor:
    """n x rank: orthonormal columns, each of mean 0."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, rank, generator=rng, dtype=torch.double)
    return torch.linalg.qr(x - x.mean(dim=0)).Q


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_effective_rank_of_equal_singular_values_is_their_number(rank):
    x = orthogonal(50, rank) @ orthogonal(20, rank, seed=1).T
    assert signals.effective_rank(x) == pytest.approx(rank, rel=1e-9)


def test_the_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values():
    values = torch.tensor([3.0, 2.0, 1.0], dtype=torch.double)
    p = values / values.sum()
    x = orthogonal(50, 3) @ torch.diag(values) @ orthogonal(20, 3, seed=1).T
    assert signals.effective_rank(x) == pytest.approx(math.exp(-(p * p.log()).sum()))


def test_a_mean_does_not_change_the_effective_rank():
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0)).double()
    assert signals.effective_rank(x + 15) == pytest.approx(signals.effective_rank(x), rel=1e-9)


def test_the_effective_rank_of_equal_rows_is_0():
    assert signals.effective_rank(torch.full((64, 16), 0.1).float()) == 0


def test_the_spread_is_1_on_the_sphere_and_0_for_equal_rows():
    x = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0))
    assert signals.spread(x) == pytest.approx(1, abs=0.01)
    assert signals.spread(torch.ones(10, 32)) == pytest.approx(0, abs=1e-6)


def test_lidar_is_the_effective_rank_of_the_generalized_eigenvalues():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(60, 5, generator=rng, dtype=torch.double) for _ in range(2))
    a = a + 2 * (centre := torch.randn(60, 5, generator=rng, dtype=torch.double) * torch.tensor([3.0, 2, 1, 1, 0.1]))
    b = b + 2 * centre
    means = (a + b) / 2
    between = torch.cov(means.T, correction=0)
    deviations = torch.stack([a - means, b - means]).flatten(0, 1)
    within = deviations.T @ deviations / len(deviations) + 1e-4 * torch.eye(5)
    values = torch.linalg.eigvals(torch.linalg.inv(within) @ between).real
    p = values / values.sum()
    assert signals.lidar(a, b) == pytest.approx(math.exp(-(p * p.log()).sum()), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_adjusted_mutual_information_is_that_of_scikit_learn(seed):
    rng = torch.Generator().manual_seed(seed)
    a = torch.randint(0, 5, (200,), generator=rng)
    b = torch.where(torch.rand(200, generator=rng) < 0.5, a, torch.randint(0, 7, (200,), generator=rng))
    expected = adjusted_mutual_info_score(a, b)
    assert signals.adjusted_mutual_information(a, b) == pytest.approx(expected, abs=1e-9)


def test_equal_clusterings_agree_by_1_also_with_other_numbers():
    a = torch.tensor([0, 0, 1, 1, 2, 2])
    assert signals.adjusted_mutual_information(a, 2 - a) == pytest.approx(1)
    assert signals.adjusted_mutual_information(torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long)) == 1


def test_k_means_finds_clusters_that_are_far_apart_as_scikit_learn_does():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (200,), generator=rng)
    x = 20 * torch.eye(4)[truth] + torch.randn(200, 4, generator=rng)
    ours, _ = signals.k_means(x, 4)
    theirs = KMeans(4, n_init="auto", random_state=0).fit(x.numpy()).labels_
    assert adjusted_mutual_info_score(ours, theirs) == pytest.approx(1)
    assert torch.equal(ours, signals.k_means(x, 4)[0])


def test_k_means_of_equal_rows_is_one_cluster():
    assert len(signals.k_means(torch.ones(30, 4), 3)[0].unique()) == 1


def test_separability_is_high_for_clusters_that_are_apart_and_low_for_noise():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 16, generator=rng)
    apart = 50 * torch.eye(16)[torch.randint(0, 4, (400,), generator=rng)] + noise
    assert signals.separability(apart, 4) > 0.9
    assert signals.separability(noise, 4) < 0.2


def test_a_query_finds_its_key_only_if_it_is_nearer_than_the_keys_of_other_images():
    torch.manual_seed(0)
    q, ids = unit(torch.randn(6, 4)), torch.tensor([0, 1, 2, 3, 4, 4])
    k = unit(q + torch.randn(6, 4))
    found = signals.finds_own_key(q, k, ids, k, ids).tolist()
    for i in range(6):
        others = [float(q[i] @ k[j]) for j in range(6) if ids[j] != ids[i]]
        assert found[i] == (float(q[i] @ k[i]) > max(others))


def test_the_standard_error_of_a_difference_is_that_of_pairs():
    a, b = torch.tensor([True, True, False, True]), torch.tensor([True, False, False, False])
    mean, error = signals.difference(a, b)
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(math.sqrt(1 / 3) / 2)  # of 0, 1, 0, 1


@pytest.mark.parametrize(("keys", "images"), [(250, 1000), (500, 1000), (1000, 1000), (3000, 1000)])
def test_own_negatives_are_those_of_a_simulated_queue(keys, images):
    rng = torch.Generator().manual_seed(0)
    epochs = [torch.randperm(images, generator=rng) for _ in range(60)]
    order, counts = torch.cat(epochs), []
    for at in range(10 * images, len(order), 7):
        counts.append(int((order[at - keys : at] == order[at]).sum()))
    expected = sum(counts) / len(counts)
    assert signals.own_negatives(keys, images, 0.0, of_dictionary="queue") == pytest.approx(expected, rel=0.1)


def test_copies_of_a_picture_are_own_negatives():
    assert signals.own_negatives(4096, 12_000, 9 / 11_999, of_dictionary="batch") == pytest.approx(4096 * 9 / 11_999)


@pytest.mark.parametrize("part", [0.0, 0.25, 1.0])
def test_the_lag_is_the_share_of_the_way_that_f_k_is_behind(part):
    first, now, key = (nn.Linear(3, 3) for _ in range(3))
    with torch.no_grad():
        for a, b, c in zip(first.parameters(), now.parameters(), key.parameters(), strict=True):
            c.copy_(b + part * (a - b))
    assert signals.lag(key, now, first) == pytest.approx(part, abs=1e-6)
