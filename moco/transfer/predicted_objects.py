"""The objects that a model predicts in one image, in pixels of the original image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from moco.transfer.scenes import Mask


@dataclass(frozen=True)
class Detections:
    """n detected objects, in any order. Coordinates as in `scenes`, except keypoints, which are at pixel centres."""

    boxes: Float[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, "n"]  # index into the classes
    scores: Float[np.ndarray, "n"]
    masks: tuple[Mask, ...] | None = None
    keypoints: Float[np.ndarray, "n K 3"] | None = None  # x, y, score

    def __len__(self) -> int:
        return len(self.labels)


def no_detections() -> Detections:
    """Detections without objects."""
    return Detections(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0))
