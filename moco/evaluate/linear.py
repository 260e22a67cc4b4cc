"""Linear classification on cached features: logistic regression to its optimum. See protocols.py for SGD."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from moco.data.sources.folder import DataError
from moco.data.sources.split import TEST_ONE_IN, draw_fifth
from moco.evaluate.features import Features
from moco.evaluate.logistic import ROWS_AT_A_TIME, Standardization, fit
from moco.evaluate.progress import Progress

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # of the L2 penalty, see logistic.py


class ProbeResult(NamedTuple):
    """The predictions of a linear classifier, and how its setting was chosen."""

    predictions: Int[Tensor, " n"]  # of the test images
    accuracy: float  # [percent]
    setting: float  # L2 strength, or lr for a batch of 256: given, or chosen on held-out training images
    tried: dict[float, float]  # setting -> accuracy [percent] on those images


def probe_lbfgs(
    train: Features,
    test: Features,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> ProbeResult:
    """Logistic regression on features, standardized by the training images.

    The L2 strength with the best accuracy on a held-out fifth of the training images is used for a fit on all of them.
    Strengths are tried from strong to weak, until two were worse than the best.

    Raises:
        DataError: no labels, or too few images.
    """
    labels, truth = train.known_labels(), test.known_labels()
    progress = progress or Progress()
    progress.expect(len(strengths) + 1, "fits")  # at most
    tried = _try_strengths(train, strengths, seed=seed, device=device, progress=progress) if len(strengths) > 1 else {}
    best = max(tried, key=lambda l2: tried[l2]) if tried else strengths[0]
    standardize = Standardization.of(train.x)
    logistic = fit(standardize(train.x).to(device), labels.to(device), classes=len(train.classes), l2=best)
    predictions = torch.cat(
        [logistic.predict(standardize(rows).to(device)).cpu() for rows in test.x.split(ROWS_AT_A_TIME)]
    )
    return ProbeResult(predictions, accuracy(predictions, truth), best, tried)


def _try_strengths(
    train: Features, strengths: Sequence[float], *, seed: int, device: str | torch.device, progress: Progress
) -> dict[float, float]:
    """The accuracy of each strength on held-out training images."""
    labels = train.known_labels()
    fitted, held = hold_out(labels, seed=seed)
    standardize = Standardization.of(train.x[fitted])
    x, x_held = (standardize(train.x[rows]).to(device) for rows in (fitted, held))
    tried, logistic, worse = {}, None, 0
    for l2 in sorted(strengths, reverse=True):
        logistic = fit(x, labels[fitted].to(device), classes=len(train.classes), l2=l2, start=logistic)
        score = accuracy(logistic.predict(x_held).cpu(), labels[held])
        worse = worse + 1 if tried and score < max(tried.values()) else 0
        tried[l2] = score
        progress.add()
        if worse == 2:
            break
    return tried


def hold_out(labels: Int[Tensor, " n"], *, seed: int = 0) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """The rows to fit on, and a fifth of each class, drawn by `seed`, to choose a setting on.

    Raises:
        DataError: no class has five images.
    """
    held = torch.from_numpy(draw_fifth(labels.numpy(), seed=seed))
    if not held.any():
        raise DataError(
            f"a linear probe chooses its settings on every {TEST_ONE_IN}th training image of a class, and no class has "
            f"{TEST_ONE_IN} of them: add some, or evaluate by kNN"
        )
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def accuracy(predictions: Int[Tensor, " n"], truth: Int[Tensor, " n"]) -> float:
    """In percent."""
    return 100 * (predictions == truth).double().mean().item()
