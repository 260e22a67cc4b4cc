"""R50-C4 (appendix A.1): one feature map, and as the head the encoder's last stage with one more BN."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moco.encoders.resnet import ResNet
from moco.transfer.models.backbones import ResNetBody, outputs_of
from moco.transfer.models.boxes import BoxPredictor, Detections, box_losses
from moco.transfer.models.heads import Sizes, branches_of, detect_all, sample
from moco.transfer.models.norms import RoIBatchNorm
from moco.transfer.models.pooling import Pool
from moco.transfer.models.proposals import Proposals
from moco.transfer.models.sampling import Target
from moco.transfer.models.settings import Settings


class C4(nn.Module):
    """The encoder's first three stages. The output of the third is the feature map."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.body = ResNetBody(network, stages=3)
        self.channels, self.strides = self.body.channels[-1], (self.body.strides[-1],)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N C _ _"]]:
        return self.body(x)[-1:]


class Res5Heads(nn.Module):
    """The last stage is computed once for RoIs of 14 x 14, and used for both boxes and masks.

    torchvision's RoIHeads would compute it twice, and update its BN twice (docs/transfer.md, difference 7).
    The authors' code has a BN after the stage, before the mean over positions (Res5ROIHeadsExtraNorm); by the wording
    of the appendix it comes after the mean. We follow the code.
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
        """The losses, by name, of RoIs that are sampled from the proposals."""
        samples, k = sample(proposals, targets, self.settings), self.settings.num_classes
        x = self.res5(self.pool(features, [one.boxes for one in samples]))
        logits, deltas = self.box_predictor(x.mean(dim=(2, 3)))
        losses = box_losses(logits, deltas, samples, [target["boxes"] for target in targets], self.settings.box_beta)
        objects = x[torch.cat([one.classes for one in samples]) < k]
        for branch in branches_of(self):
            losses |= branch.losses(objects, [one.foreground(k) for one in samples], targets)
        return losses

    @torch.no_grad()
    def predict(
        self, features: Sequence[Float[Tensor, "N C _ _"]], proposals: list[Proposals], sizes: Sizes
    ) -> list[Detections]:
        """The detections of each image, in pixels of the network's input, with masks for the detected boxes."""
        boxes = [one.boxes for one in proposals]
        x = self.res5(self.pool(features, boxes))
        logits, deltas = self.box_predictor(x.mean(dim=(2, 3)))
        detections = detect_all(logits, deltas, boxes, sizes, self.settings)
        for branch in branches_of(self):
            branch.predict(self.res5(self.pool(features, [one["boxes"] for one in detections])), detections)
        return detections
