"""Measures on synthetic features, against plain computations."""

import numpy as np
import torch

from moco.comparison.bootstrap import draw_halves
from moco.comparison.measures import COMPARISON_K, KNN, measure_knn
from moco.evaluate.knn import knn
from tests.evaluate.samples import clouds


def test_20_nn_of_halves_is_knn_on_the_images_of_each_half():
    train, test = clouds(150, noise=3.0), clouds(40, noise=3.0, seed=1)
    found = measure_knn(train, test, device=torch.device("cpu"))
    truth = test.known_labels()
    np.testing.assert_array_equal(found.correct[KNN][0], knn(train, test, k=COMPARISON_K).predictions == truth)
    for half, correct in zip(draw_halves(150)[:10], found.of_halves, strict=False):
        rows = torch.from_numpy(np.flatnonzero(half))
        np.testing.assert_array_equal(correct, knn(train[rows], test, k=COMPARISON_K).predictions == truth)
    assert 0.3 < found.of_halves.mean() < 0.95  # else all are equal
