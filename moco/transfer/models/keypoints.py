"""The keypoint branch (Mask R-CNN, arXiv:1703.06870, Sec. 5): a heat map for each keypoint."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypoints_to_heatmap

from moco.transfer.models.boxes import Detections
from moco.transfer.models.head_branch import Branch
from moco.transfer.models.pooling import Pool
from moco.transfer.models.sampling import SampledRegions, Target
from moco.transfer.models.settings import Settings


class KeypointBranch(Branch):
    """RoI features to heat maps of four times their size. torchvision's layers are the same as Detectron2's."""

    target = "keypoints"

    def __init__(self, channels: int, settings: Settings, *, pool: Pool) -> None:
        super().__init__()
        self.pool, width = pool, settings.keypoint_channels
        self.head = KeypointRCNNHeads(channels, (width,) * 8)
        self.predictor = KeypointRCNNPredictor(width, settings.num_keypoints)

    def forward(self, x: Float[Tensor, "R D m m"]) -> Float[Tensor, "R P M M"]:
        """The logits of the positions of P keypoints."""
        return self.predictor(self.head(x)).float()

    def losses(
        self, x: Float[Tensor, "R D m m"], samples: list[SampledRegions], targets: list[Target]
    ) -> dict[str, Tensor]:
        """The cross entropy over the positions, averaged over all visible keypoints inside of their RoIs."""
        pairs = [pair for pair in zip(samples, targets, strict=True) if len(pair[0].boxes)]
        if not pairs:
            return {"loss_keypoint": self(x).sum() * 0}
        wanted = [keypoint_targets(*pair, 4 * x.shape[-1]) for pair in pairs]
        position = torch.cat([one[0] for one in wanted])
        valid = torch.cat([one[1] for one in wanted])
        used = valid.any(dim=1)
        logits, position, valid = self(x[used]).flatten(2), position[used], valid[used]
        if not valid.any():
            return {"loss_keypoint": logits.sum() * 0}
        return {"loss_keypoint": cross_entropy(logits[valid], position[valid])}

    def predict(self, x: Float[Tensor, "R D m m"], detections: list[Detections]) -> None:
        """Add "keypoints" n x P x 3: x, y and a score.

        torchvision's score is the logit. This is Detectron2's: exp of the peak of the map that is resized to the box,
        divided by the sum of exp over the map at its own resolution.
        """
        counts = [len(each["boxes"]) for each in detections]
        for each, maps in zip(detections, self(x).split(counts), strict=True):
            points, peak = heatmaps_to_keypoints(maps, each["boxes"])
            score = 1 / (maps.flatten(2) - peak[:, :, None]).exp().sum(dim=2)
            each["keypoints"] = torch.cat([points[:, :, :2], score[:, :, None]], dim=2)


def keypoint_targets(sample: SampledRegions, target: Target, side: int) -> tuple[Int[Tensor, "R P"], Tensor]:
    """The cell y * side + x of each keypoint in its RoI, and whether it is visible and inside."""
    position, valid = keypoints_to_heatmap(target["keypoints"][sample.matched], sample.boxes, side)
    return position, valid.bool()
