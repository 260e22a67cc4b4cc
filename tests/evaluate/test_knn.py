"""Against a brute-force reading of the rule in float64, and scikit-learn's."""

import numpy as np
import pytest
import torch

from moco.data.sources.folder import DataError
from moco.evaluate import knn as module
from moco.evaluate.features import Features
from moco.evaluate.knn import knn, nearest, vote
from moco.recipe import RecipeError
from tests.evaluate.samples import clouds, features_of


def by_the_rule(train: Features, test: Features, *, k: int, temperature: float) -> np.ndarray:
    """w = exp(cos / T), one query and one neighbour at a time."""
    bank, labels = train.x.double().numpy(), train.known_labels().numpy()
    predictions = []
    for query in test.x.double().numpy():
        cosine = bank @ query / (np.linalg.norm(bank, axis=1) * np.linalg.norm(query))
        votes = np.zeros(labels.max() + 1)
        for i in np.argsort(-cosine)[:k]:
            votes[labels[i]] += np.exp(cosine[i] / temperature)
        predictions.append(votes.argmax())
    return np.array(predictions)


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_knn_equals_the_rule_computed_in_float64(k: int, temperature: float):
    train, test = clouds(300, noise=2), clouds(120, noise=2, seed=1)
    answer = knn(train, test, k=k, temperature=temperature)
    expected = by_the_rule(train, test, k=k, temperature=temperature)
    np.testing.assert_array_equal(answer.predictions.numpy(), expected)
    assert answer.accuracy == pytest.approx(100 * np.mean(expected == test.known_labels().numpy()))


def test_knn_equals_that_of_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, test = clouds(300, noise=2), clouds(120, noise=2, seed=1)
    theirs = neighbors.KNeighborsClassifier(
        n_neighbors=20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
    ).fit(train.x.numpy(), train.known_labels().numpy())
    np.testing.assert_array_equal(knn(train, test, k=20).predictions.numpy(), theirs.predict(test.x.numpy()))


def test_neighbours_are_the_same_however_they_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch):
    train, test = clouds(203), clouds(57, seed=1)
    whole = nearest(train.x, test.x, k=9)
    monkeypatch.setattr(module, "QUERIES", 10)
    monkeypatch.setattr(module, "BANK", 7)  # fewer than k
    parts = nearest(train.x, test.x, k=9)
    assert torch.equal(whole.indices, parts.indices)
    torch.testing.assert_close(whole.similarities, parts.similarities)


@pytest.mark.parametrize(("columns", "k"), [(8, 1), (64, 8), (80, 7), (85, 10), (1003, 20), (15, 2), (9, 9)])
@pytest.mark.parametrize("values", [1000, 5])  # with five, nearly all are equal to others
def test_the_greatest_by_groups_are_the_greatest(columns: int, k: int, values: int):
    rows = torch.randint(values, (50, columns), generator=torch.Generator().manual_seed(0)).float()
    found = module._top_k(rows, k)
    assert torch.equal(found.similarities, rows.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(rows.gather(1, found.indices), found.similarities)
    assert all(len(set(indices)) == k for indices in found.indices.tolist())


def test_neighbours_come_nearest_first():
    similarities = nearest(clouds(50).x, clouds(5, seed=1).x, k=50).similarities
    assert torch.equal(similarities, similarities.sort(dim=1, descending=True).values)


def test_no_more_similarities_exist_at_a_time_than_a_chunk_has(monkeypatch: pytest.MonkeyPatch):
    sizes = []
    original = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, *rest: sizes.append(self.numel()) or original(self, *rest))
    monkeypatch.setattr(module, "QUERIES", 10)
    monkeypatch.setattr(module, "BANK", 20)
    nearest(clouds(200).x, clouds(100, seed=1).x, k=3)
    assert max(sizes) == 10 * 20


def test_votes_are_counted_for_some_queries_at_a_time_with_the_same_result(monkeypatch: pytest.MonkeyPatch):
    train, test = clouds(80, noise=2), clouds(33, noise=2, seed=1)
    found = nearest(train.x, test.x, k=9)
    weights = ((found.similarities - found.similarities[:, :1]) / 0.1).exp()  # each neighbour's vote, by hand
    expected = torch.zeros(33, 4).scatter_add_(1, train.known_labels()[found.indices], weights).argmax(dim=1)
    sizes, original = [], torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, **more: sizes.append(size) or original(*size, **more))
    monkeypatch.setattr(module, "VOTES", 21)
    assert torch.equal(vote(found, train, test).predictions, expected)
    assert max(rows * classes for rows, classes in sizes) <= 21


def test_one_neighbour_gives_its_own_label():
    train, test = clouds(80), clouds(30, seed=1)
    found = nearest(train.x, test.x, k=5)
    assert torch.equal(vote(found, train, test, k=1).predictions, train.known_labels()[found.indices[:, 0]])


def test_the_length_of_a_feature_does_not_count():
    train, test = clouds(80), clouds(30, seed=1)
    lengths = np.random.default_rng(0).uniform(0.1, 10, size=(80, 1))
    scaled = features_of(train.x.numpy() * lengths, train.known_labels().numpy())
    assert torch.equal(knn(scaled, test, k=7).predictions, knn(train, test, k=7).predictions)


def test_with_a_tiny_temperature_the_nearest_neighbour_decides():
    train, test = clouds(80, noise=2), clouds(30, noise=2, seed=1)
    cold = knn(train, test, k=20, temperature=1e-5)  # exp(1 / T) is far beyond float32
    assert torch.equal(cold.predictions, knn(train, test, k=1).predictions)


def test_knn_uses_all_images_of_a_bank_smaller_than_k():
    train, test = clouds(8), clouds(30, seed=1)
    answer = knn(train, test, k=200)
    assert answer.k == 8
    assert torch.equal(answer.predictions, knn(train, test, k=8).predictions)


def test_the_accuracy_is_unknown_without_test_labels():
    test = clouds(30, seed=1)
    answer = knn(clouds(80), features_of(test.x.numpy(), None), k=5)
    assert np.isnan(answer.accuracy)
    assert torch.equal(answer.predictions, knn(clouds(80), test, k=5).predictions)


def test_a_bank_without_labels_is_an_error_that_says_what_to_do():
    with pytest.raises(DataError, match="class folders"):
        knn(features_of(np.ones((4, 2)), None), clouds(4, dims=2))


@pytest.mark.parametrize("settings", [{"k": 0}, {"k": 3, "temperature": 0.0}])
def test_settings_out_of_range_are_errors(settings: dict):
    with pytest.raises(RecipeError, match="got 0"):
        knn(clouds(8), clouds(8), **settings)
