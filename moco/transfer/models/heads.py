"""The heads of a detector: boxes, and branches for masks, keypoints or dense pose."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from moco.transfer.models.boxes import BoxPredictor, Detections, box_losses, decode_detections
from moco.transfer.models.head_branch import Branch
from moco.transfer.models.pooling import Pool
from moco.transfer.models.proposals import Proposals
from moco.transfer.models.sampling import SampledRegions, Target, sample_rois
from moco.transfer.models.settings import Settings

Sizes = list[tuple[int, int]]  # (height, width) of each image


class StandardHeads(nn.Module):
    """Heads for FPN and dilated C5: each branch pools its own RoIs from the feature maps."""

    def __init__(self, channels: int, strides: tuple[int, ...], settings: Settings) -> None:
        super().__init__()
        self.settings, self.pool = settings, Pool(7, strides)
        self.box_head = TwoMLPHead(channels * 7 * 7, settings.fc_channels)
        for layer in (self.box_head.fc6, self.box_head.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)  # docs/transfer.md, difference 5
            nn.init.zeros_(layer.bias)
        self.box_predictor = BoxPredictor(settings.fc_channels, settings.num_classes)
        self.branches = nn.ModuleDict()

    def losses(
        self, features: Sequence[Float[Tensor, "N C _ _"]], proposals: list[Proposals], targets: list[Target]
    ) -> dict[str, Tensor]:
        """The losses, by name, of RoIs that are sampled from the proposals."""
        samples = sample(proposals, targets, self.settings)
        logits, deltas = self.classify(features, [one.boxes for one in samples])
        losses = box_losses(logits, deltas, samples, [target["boxes"] for target in targets], self.settings.box_beta)
        objects = [one.foreground(self.settings.num_classes) for one in samples]
        for branch in branches_of(self):
            pooled = branch.pool(features, [one.boxes for one in objects])
            losses |= branch.losses(pooled, objects, targets)
        return losses

    def classify(
        self, features: Sequence[Float[Tensor, "N C _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K 4"]]:
        """Logits and deltas of all RoIs of all images."""
        return self.box_predictor(self.box_head(self.pool(features, boxes)))

    @torch.no_grad()
    def predict(
        self, features: Sequence[Float[Tensor, "N C _ _"]], proposals: list[Proposals], sizes: Sizes
    ) -> list[Detections]:
        """The detections of each image, in pixels of the network's input."""
        boxes = [one.boxes for one in proposals]
        detections = detect_all(*self.classify(features, boxes), boxes, sizes, self.settings)
        for branch in branches_of(self):
            branch.predict(branch.pool(features, [one["boxes"] for one in detections]), detections)
        return detections


def branches_of(heads: nn.Module) -> list[Branch]:
    """The branches of the heads, without the box head."""
    return cast(list[Branch], list(heads.get_submodule("branches").children()))


def sample(proposals: list[Proposals], targets: list[Target], settings: Settings) -> list[SampledRegions]:
    """The RoIs of each image that are used in training."""
    count, k = settings.rois_sampled, settings.num_classes
    pairs = zip(proposals, targets, strict=True)
    return [sample_rois(one.boxes, target, count=count, num_classes=k) for one, target in pairs]


def detect_all(
    logits: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R K 4"],
    boxes: list[Tensor],
    sizes: Sizes,
    settings: Settings,
) -> list[Detections]:
    """The detections of each image, from the box head's outputs for all proposals."""
    counts = [len(one) for one in boxes]
    images = zip(logits.split(counts), deltas.split(counts), boxes, sizes, strict=True)
    return [decode_detections(*image, settings) for image in images]
