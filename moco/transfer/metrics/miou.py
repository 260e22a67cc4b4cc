"""Scores of semantic segmentation: the IoU of each class over all pixels of a data set, and its mean."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from moco.data.sources.images import DataError
from moco.transfer.metrics.shared import mean_of_known
from moco.transfer.semantic import IGNORED


@dataclass(frozen=True)
class SemanticScores:
    """Scores in [0, 1]; NaN for a class that is neither in the ground truth nor predicted."""

    classes: tuple[str, ...]
    iou: Float64[np.ndarray, "K"]
    accuracy: Float64[np.ndarray, "K"]  # share of a class's pixels that are predicted as it; NaN if it has none
    pixel_accuracy: float  # share of all pixels that are predicted correctly

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur or are predicted."""
        return mean_of_known(self.iou)


class Confusion:
    """Confusion matrix: numbers of pixels by true and predicted class. Pixels labelled IGNORED are not counted."""

    def __init__(self, classes: tuple[str, ...]):
        self.classes = classes
        self.counts: Int64[np.ndarray, "K K"] = np.zeros(
            (len(classes), len(classes)), dtype=np.int64
        )  # true, predicted

    def add(self, truth: UInt8[np.ndarray, "H W"], predicted: np.ndarray) -> None:
        """Add an image. Raises DataError if the prediction has another size, or a value that is no class."""
        if predicted.shape != truth.shape:
            raise DataError(
                f"the prediction has {list(predicted.shape)} pixels (height, width), the labels {list(truth.shape)}"
            )
        counted = truth != IGNORED
        true, given = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
        k = len(self.classes)
        for name, values in (("true", true), ("predicted", given)):
            if values.size and not (values.min() >= 0 and values.max() < k):
                raise DataError(
                    f"a {name} class {values.max() if values.max() >= k else values.min()}; expected 0..{k - 1}"
                )
        self.counts += np.bincount(true * k + given, minlength=k * k).reshape(k, k)

    def scores(self) -> SemanticScores:
        counts = self.counts.astype(np.float64)
        hits, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        with np.errstate(invalid="ignore"):
            return SemanticScores(
                self.classes, hits / (true + predicted - hits), hits / true, float(hits.sum() / counts.sum())
            )
