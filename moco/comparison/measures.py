"""Measures with labels: for each test image, whether the frozen features classify it correctly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32

from moco.comparison.bootstrap import draw_halves
from moco.data.sources.folder import DataError
from moco.evaluate.features import Features
from moco.evaluate.knn import TEMPERATURE, VOTES, Nearest, nearest, vote
from moco.evaluate.linear import probe_lbfgs
from moco.evaluate.logistic import Standardization, fit
from moco.evaluate.lowshot import C, draw_labelled_rows

COMPARISON_K = 20  # neighbours: classes of small sets have tens of images, where 200 neighbours would outvote them
AMONG = (
    4 * COMPARISON_K
)  # nearest images in which those of a half are looked for: fewer than K are there in one of 10^6 cases
DRAWS = 10  # of the labelled images
FEW_LABELS = (1, 2, 5, 10)  # of each class
KNN = f"{COMPARISON_K}-NN"


@dataclass(frozen=True, eq=False)
class Measured:
    """The measures of one encoder: 1 for each test image that is classified correctly, else 0."""

    correct: Mapping[str, Float[np.ndarray, "d n"]]  # of each draw and test image, by measure
    of_halves: Float32[np.ndarray, "H n"]  # by KNN among each half of the training images
    notes: Sequence[str] = ()  # on measures that these images do not allow


Measure = Callable[..., Measured]  # of (train, test, device=)


def measure_knn(train: Features, test: Features, *, device: torch.device) -> Measured:
    """The measure that decides, alone: it takes a fraction of the time of the features."""
    truth, found = test.known_labels(), nearest(train.x, test.x, k=AMONG, device=device)
    predictions = vote(found, train, test, k=COMPARISON_K).predictions
    return Measured({KNN: _correct(predictions, truth)[None]}, _knn_of_halves(found, train, test))


def _knn_of_halves(found: Nearest, train: Features, test: Features) -> Float32[np.ndarray, "H n"]:
    """KNN with each half of the training images, from the neighbours among all of them."""
    labels, truth = train.known_labels()[found.indices], test.known_labels()
    weights = ((found.similarities - found.similarities[:, :1]) / TEMPERATURE).exp()
    halves = torch.from_numpy(draw_halves(len(train.x)))
    classes = int(labels.max()) + 1
    correct = torch.empty(len(halves), len(truth))
    for rows in torch.arange(len(truth)).split(max(1, VOTES // classes)):
        for half, row in zip(halves, correct, strict=True):
            present = half[found.indices[rows]]
            voting = weights[rows] * (present & (present.cumsum(dim=1) <= COMPARISON_K))
            votes = torch.zeros(len(rows), classes, dtype=voting.dtype).scatter_add_(1, labels[rows], voting)
            row[rows] = (votes.argmax(dim=1) == truth[rows]).float()
    return correct.numpy()


def measure_encoder(train: Features, test: Features, *, device: torch.device) -> Measured:
    """All measures of one encoder."""
    decides, truth, notes = measure_knn(train, test, device=device), test.known_labels(), list[str]()
    found = dict(decides.correct)
    try:
        found["linear"] = _correct(probe_lbfgs(train, test, device=device).predictions, truth)[None]
    except DataError as error:
        notes.append(f"linear not measured: {error}")
    for per_class in FEW_LABELS:
        name = f"{per_class} label{'s' if per_class > 1 else ''} a class"
        try:
            found[name] = np.stack(list(_few_labels(train, test, per_class, device=device)))
        except DataError:
            notes.append(f"{name} not measured: a class has fewer training images")
    return Measured(found, decides.of_halves, notes)


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
