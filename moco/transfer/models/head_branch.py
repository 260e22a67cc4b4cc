"""The interface of branches, which compute masks, keypoints or dense pose for the RoIs of a detector."""

from jaxtyping import Float
from torch import Tensor, nn

from moco.transfer.models.boxes import Detections
from moco.transfer.models.pooling import Pool
from moco.transfer.models.sampling import SampledRegions, Target


class Branch(nn.Module):
    """A head for masks, keypoints or dense pose. It gets features of the RoIs of objects only, pooled by `pool`."""

    pool: Pool
    target: str  # the name of its annotations in a target

    def losses(
        self, x: Float[Tensor, "R D m m"], samples: list[SampledRegions], targets: list[Target]
    ) -> dict[str, Tensor]:
        """The losses, by name. `samples`: the RoIs of each image. `x`: the features of all RoIs."""
        raise NotImplementedError

    def predict(self, x: Float[Tensor, "R D m m"], detections: list[Detections]) -> None:
        """Add the branch's predictions for the detected boxes to the detections of each image."""
        raise NotImplementedError
