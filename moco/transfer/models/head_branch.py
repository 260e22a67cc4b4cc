"""What a detector may compute for its RoIs beside boxes."""

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
        """By name. `samples` are the RoIs of each image, and `x` the features of all."""
        raise NotImplementedError

    def predict(self, x: Float[Tensor, "R D m m"], detections: list[Detections]) -> None:
        """Adds to each image's detections what was found in their boxes."""
        raise NotImplementedError
