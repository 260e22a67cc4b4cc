"""The interface of branches: what a detector computes for its RoIs besides boxes."""

from jaxtyping import Float
from torch import Tensor, nn

from moco.transfer.models.boxes import Detections
from moco.transfer.models.pooling import Pool
from moco.transfer.models.sampling import Sample, Target


class Branch(nn.Module):
    """Masks, keypoints or dense pose. It looks at the RoIs of objects only, cut out as it says in `pool`."""

    pool: Pool
    target: str  # what it needs of a target

    def losses(self, x: Float[Tensor, "R D m m"], samples: list[Sample], targets: list[Target]) -> dict[str, Tensor]:
        """The losses, by name. `samples`: the RoIs of each image. `x`: the features of all RoIs."""
        raise NotImplementedError

    def predict(self, x: Float[Tensor, "R D m m"], detections: list[Detections]) -> None:
        """Add the branch's predictions for the detected boxes to the detections of each image."""
        raise NotImplementedError
