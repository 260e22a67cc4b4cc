import numpy as np
import pytest
import torch

from moco.data.sources.folder import DataError
from moco.evaluate.knn import knn
from moco.evaluate.logistic import Standardization
from moco.evaluate.lowshot import C, draw_labelled_rows, lowshot
from tests.evaluate.samples import clouds, features_of

NAMES = ["c0", "c1", "c2", "c3"]


def test_every_draw_has_so_many_images_of_each_class_and_none_twice():
    labels = clouds(203).known_labels()
    for rows in draw_labelled_rows(labels, 10, draws=5, seed=0, classes=NAMES):
        assert labels[rows].bincount().tolist() == [10] * 4
        assert len(rows.unique()) == 40


def test_the_draws_are_five_different_ones_and_the_same_every_time():
    labels = clouds(200).known_labels()
    one, other = (
        [rows.tolist() for rows in draw_labelled_rows(labels, 10, draws=5, seed=0, classes=NAMES)] for _ in range(2)
    )
    assert one == other
    assert len({tuple(rows) for rows in one}) == 5


def test_more_labels_keep_those_that_were_drawn_before():
    labels = clouds(200).known_labels()
    few, many = (next(iter(draw_labelled_rows(labels, m, draws=1, seed=0, classes=NAMES))).tolist() for m in (5, 10))
    assert set(few) < set(many)


def test_the_linear_accuracy_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, test = clouds(400, dims=60, noise=3), clouds(500, dims=60, noise=3, seed=1)
    scale, truth = Standardization.of(train.x), test.known_labels().numpy()
    expected = []
    for rows in draw_labelled_rows(train.known_labels(), 10, draws=5, seed=0, classes=NAMES):
        theirs = linear_model.LogisticRegression(C=C, max_iter=10_000, tol=1e-8)
        theirs.fit(scale(train.x[rows]).double(), train.known_labels()[rows])
        expected.append(100 * theirs.score(scale(test.x).double(), truth))
    assert lowshot(train, test).linear == pytest.approx(expected, abs=0.41)  # two of 500 images


def test_the_nearest_neighbour_is_looked_for_among_the_drawn_alone():
    train, test = clouds(400, noise=3), clouds(100, noise=3, seed=1)
    rows = next(iter(draw_labelled_rows(train.known_labels(), 10, draws=1, seed=0, classes=NAMES)))
    assert lowshot(train, test, draws=1).nearest == [knn(train[rows], test, k=1).accuracy]


def test_only_drawn_images_are_neighbours():
    train, test = clouds(200, noise=2), clouds(100, noise=2, seed=1)
    rows = next(iter(draw_labelled_rows(train.known_labels(), 10, draws=1, seed=0, classes=NAMES)))
    x = test.x[:1].expand(200, -1).clone()  # the others: one image 160 times
    x[rows] = train.x[rows]
    changed = features_of(x.numpy(), train.known_labels().numpy())
    assert lowshot(changed, test, draws=1).nearest == lowshot(train, test, draws=1).nearest


def test_a_class_with_too_few_images_is_named():
    labels = np.array([0] * 30 + [1] * 9 + [2] * 30)
    train = features_of(np.random.default_rng(0).normal(size=(69, 4)), labels)
    with pytest.raises(DataError, match="c1 has 9: give a smaller --labels-per-class"):
        lowshot(train, train)


def test_an_answer_depends_on_no_other_test_image():
    train, test = clouds(200, noise=2), clouds(100, noise=2, seed=1)
    halves = [test[torch.arange(0, 50)], test[torch.arange(50, 100)]]
    apart = np.mean([lowshot(train, half).linear for half in halves], axis=0)
    assert lowshot(train, test).linear == pytest.approx(list(apart))
