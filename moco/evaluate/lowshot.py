"""Low-shot evaluation: a linear classifier and the nearest neighbour with a few labels of each class."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from moco.data.sources.folder import DataError
from moco.evaluate.features import Features
from moco.evaluate.knn import knn
from moco.evaluate.linear import accuracy
from moco.evaluate.logistic import Standardization, fit
from moco.evaluate.progress import Progress
from moco.rng import fold, permute
from moco.text import escape

LABELS_PER_CLASS = 10  # of each class
LABEL_DRAWS = 5
# The fixed strength of the logistic regression, as scikit-learn's C. Of 0.001 ... 10 it is the value with the smallest
# loss in accuracy against the best strength of each of raw pixels, random encoders and MoCo (1.2 points at most), on a
# held-out part of the demo's training images.
C = 0.03


class LowShotAccuracies(NamedTuple):
    """Accuracies [percent] on all test images, one for each draw of labelled training images."""

    linear: list[float]
    nearest: list[float]  # 1-NN, cosine


def lowshot(
    train: Features,
    test: Features,
    *,
    labels_per_class: int = LABELS_PER_CLASS,
    draws: int = LABEL_DRAWS,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> LowShotAccuracies:
    """Logistic regression and 1-NN with the labels of a few training images, for several fixed draws of these.

    Features are standardized by all training images, which needs no labels. The L2 strength is fixed, as there are no
    held-out images to choose it on.

    Raises:
        DataError: no labels, or a class with too few images.
    """
    labels, truth = train.known_labels(), test.known_labels()
    standardize, found = Standardization.of(train.x), LowShotAccuracies([], [])
    x_test, progress = standardize(test.x).to(device), progress or Progress()
    progress.expect(draws, "draws")
    for rows in draw_labelled_rows(labels, labels_per_class, draws=draws, seed=seed, classes=train.classes):
        x, answers = standardize(train.x[rows]).to(device), labels[rows].to(device)
        logistic = fit(x, answers, classes=len(train.classes), l2=1 / (C * len(rows)))
        found.linear.append(accuracy(logistic.predict(x_test).cpu(), truth))
        found.nearest.append(knn(train[rows], test, k=1, device=device).accuracy)
        progress.add()
    return found


def draw_labelled_rows(
    labels: Int[Tensor, " n"], per_class: int, *, draws: int, seed: int, classes: Sequence[str]
) -> Iterator[Int[Tensor, " m"]]:
    """For each draw `per_class` rows of every class; a function of the labels and the seed alone."""
    members = [(labels == label).nonzero().flatten() for label in range(len(classes))]
    fewest = min(range(len(classes)), key=lambda label: len(members[label]))
    if len(members[fewest]) < per_class:
        raise DataError(
            f"expected at least {per_class} training images of each class, and {escape(classes[fewest])} has "
            f"{len(members[fewest])}: give a smaller --labels-per-class, or add images"
        )
    for draw in range(draws):
        first = [
            permute(np.arange(per_class), len(rows), fold(seed, draw, label)) for label, rows in enumerate(members)
        ]
        yield torch.cat([rows[torch.from_numpy(places)] for rows, places in zip(members, first, strict=True)])
