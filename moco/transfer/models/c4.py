"""Detectors on one feature map whose head is the encoder's last stage (R50-C4), and its BN (appendix A.1)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moco.encoders.resnet import ResNet
from moco.transfer.models.backbones import ResNetBody, outputs_of
from moco.transfer.models.boxes import BoxPredictor, Detections, box_losses
from moco.transfer.models.heads import Sizes, branches_of, found_in, sample
from moco.transfer.models.norms import RoIBatchNorm
from moco.transfer.models.pooling import Pool
from moco.transfer.models.proposals import Proposals
from moco.transfer.models.sampling import Target
from moco.transfer.models.settings import Settings


class C4(nn.Module):
    """The encoder's first three stages, of which the third has the feature map."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.body = ResNetBody(network, stages=3)
        self.channels, self.strides = self.body.channels[-1], (self.body.strides[-1],)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N C _ _"]]:
        return self.body(x)[-1:]


class Res5Heads(nn.Module):
    """RoIs of 14 x 14 go once through the last stage, for the boxes and the masks.

    torchvision's RoIHeads would run a stage that box and mask head share twice, and update its BN twice (difference 7).
    The authors' code puts a BN behind the stage, before the mean over positions (their Res5ROIHeadsExtraNorm); the
    appendix words it as behind the mean. The code is followed.
    """

    def __init__(self, network: ResNet, stride: int, settings: Settings) -> None:
        super().__init__()
        self.settings, self.pool = settings, Pool(14, (stride,))
        self.channels = outputs_of(network.layer4[0])
        self.res5 = nn.Sequential(*network.layer4)
        if settings.box_norm:
            self.res5.add_module("norm", RoIBatchNorm(self.channels))
        self.box_predictor = BoxPredictor(self.channels, settings.num_classes)
        self.branches = nn.ModuleDict()

    def losses(
        self, features: Sequence[Float[Tensor, "N C _ _"]], proposals: list[Proposals], targets: list[Target]
    ) -> dict[str, Tensor]:
        """Of the RoIs that `sample` draws from the proposals."""
        samples, k = sample(proposals, targets, self.settings), self.settings.num_classes
        x = self.res5(self.pool(features, [found.boxes for found in samples]))
        logits, deltas = self.box_predictor(x.mean(dim=(2, 3)))
        losses = box_losses(logits, deltas, samples, [target["boxes"] for target in targets], self.settings.box_beta)
        objects = x[torch.cat([found.classes for found in samples]) < k]
        for branch in branches_of(self):
            losses |= branch.losses(objects, [found.foreground(k) for found in samples], targets)
        return losses

    @torch.no_grad()
    def predict(
        self, features: Sequence[Float[Tensor, "N C _ _"]], proposals: list[Proposals], sizes: Sizes
    ) -> list[Detections]:
        """The detections of each image, in pixels of the network's input. Masks are of the boxes found."""
        boxes = [found.boxes for found in proposals]
        x = self.res5(self.pool(features, boxes))
        logits, deltas = self.box_predictor(x.mean(dim=(2, 3)))
        detections = found_in(logits, deltas, boxes, sizes, self.settings)
        for branch in branches_of(self):
            branch.predict(self.res5(self.pool(features, [found["boxes"] for found in detections])), detections)
        return detections
