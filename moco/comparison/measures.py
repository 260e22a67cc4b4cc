"""Measures with labels: for each test image, whether the frozen features classify it correctly."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float

from moco.data.sources.folder import DataError
from moco.evaluate.features import Features
from moco.evaluate.knn import knn
from moco.evaluate.linear import probe_lbfgs
from moco.evaluate.logistic import Standardization, fit
from moco.evaluate.lowshot import C, draw_labelled_rows

K = 20  # neighbours: classes of small sets have tens of images, where 200 neighbours would outvote them
DRAWS = 10  # of the labelled images
FEW_LABELS = (1, 2, 5, 10)  # of each class
KNN = f"{K}-NN"

Correct = dict[str, Float[np.ndarray, "d n"]]  # 1 or 0, of each draw and test image, by measure


Measured = tuple[Correct, list[str]]  # and notes on measures that these images do not allow
Measure = Callable[..., Measured]  # of (train, test, device=)


def measure_knn(train: Features, test: Features, *, device: torch.device) -> Measured:
    """The measure that decides, alone: it takes a fraction of the time of the features."""
    return {KNN: _correct(knn(train, test, k=K, device=device).predictions, test.known_labels())[None]}, []


def measure(train: Features, test: Features, *, device: torch.device) -> Measured:
    """All measures of one encoder."""
    truth, (found, notes) = test.known_labels(), measure_knn(train, test, device=device)
    try:
        found["linear"] = _correct(probe_lbfgs(train, test, device=device).predictions, truth)[None]
    except DataError as error:
        notes.append(f"no linear: {error}")
    for per_class in FEW_LABELS:
        name = f"{per_class} label{'s' if per_class > 1 else ''} a class"
        try:
            found[name] = np.stack(list(_few_labels(train, test, per_class, device=device)))
        except DataError:
            notes.append(f"no measure with {name}: a class has fewer training images")
    return found, notes


def _few_labels(
    train: Features, test: Features, per_class: int, *, device: torch.device
) -> Iterator[Float[np.ndarray, "n"]]:
    """Logistic regression as in `moco.evaluate.lowshot`, for each draw of the labelled images."""
    labels, truth = train.known_labels(), test.known_labels()
    standardize = Standardization.of(train.x)
    x_test = standardize(test.x).to(device)
    for rows in draw_labelled_rows(labels, per_class, draws=DRAWS, seed=0, classes=train.classes):
        x, answers = standardize(train.x[rows]).to(device), labels[rows].to(device)
        logistic = fit(x, answers, classes=len(train.classes), l2=1 / (C * len(rows)))
        yield _correct(logistic.predict(x_test).cpu(), truth)


def _correct(predictions: torch.Tensor, truth: torch.Tensor) -> Float[np.ndarray, "n"]:
    return (predictions == truth).double().numpy()
