"""Semantic segmentation: intersection over union of each class over all pixels of a data set, and its mean."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from moco.data.sources.images import DataError
from moco.transfer.semantic import IGNORED


@dataclass(frozen=True)
class SemanticScores:
    """Scores in [0, 1]; NaN for a class that is neither in the ground truth nor predicted."""

    classes: tuple[str, ...]
    iou: Float64[np.ndarray, "K"]
    accuracy: Float64[np.ndarray, "K"]  # of the pixels of each class, the part that is found; NaN where it has none
    pixel_accuracy: float  # of all pixels

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur or are predicted."""
        known = self.iou[~np.isnan(self.iou)]
        return float(known.mean()) if known.size else float("nan")


class Confusion:
    """Confusion matrix: pixels by true and predicted class. Pixels labelled IGNORED do not count."""

    def __init__(self, classes: tuple[str, ...]):
        self.classes = classes
        self.counts: Int64[np.ndarray, "K K"] = np.zeros(
            (len(classes), len(classes)), dtype=np.int64
        )  # true, predicted

    def add(self, truth: UInt8[np.ndarray, "H W"], predicted: np.ndarray) -> None:
        """Count an image. Raises DataError for a prediction of another size or of no class."""
        if predicted.shape != truth.shape:
            raise DataError(f"a prediction of {list(predicted.shape)} pixels for a truth of {list(truth.shape)}")
        counted = truth != IGNORED
        of, given = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
        k = len(self.classes)
        for name, values in (("true", of), ("predicted", given)):
            if values.size and not (values.min() >= 0 and values.max() < k):
                raise DataError(
                    f"a {name} class {values.max() if values.max() >= k else values.min()}; expected 0..{k - 1}"
                )
        self.counts += np.bincount(of * k + given, minlength=k * k).reshape(k, k)

    def scores(self) -> SemanticScores:
        counts = self.counts.astype(np.float64)
        hits, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        with np.errstate(invalid="ignore"):
            return SemanticScores(
                self.classes, hits / (true + predicted - hits), hits / true, float(hits.sum() / counts.sum())
            )
