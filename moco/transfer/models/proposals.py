"""The region proposal network (RPN; Faster R-CNN, arXiv:1506.01497, Sec. 3.1) on one or several feature maps."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image

from moco.transfer.models.anchors import cell_anchors, grid_anchors
from moco.transfer.models.sampling import RPN_CODER, Target, match_boxes, subsample
from moco.transfer.models.settings import Settings

NMS_IOU = 0.7


class Proposals(NamedTuple):
    """The proposals of one image, by decreasing score."""

    boxes: Float[Tensor, "n 4"]  # clipped to the image
    logits: Float[Tensor, "n"]


class Outputs(NamedTuple):
    """The outputs of the RPN, one entry for each feature map."""

    anchors: list[Tensor]  # HWA x 4
    logits: list[Tensor]  # N x HWA
    deltas: list[Tensor]  # N x HWA x 4


class ProposalNetwork(nn.Module):
    """torchvision's RPN head, with Detectron2's anchors, losses and choice of proposals (differences 2, 3 and 11)."""

    def __init__(self, channels: int, strides: tuple[int, ...], settings: Settings) -> None:
        super().__init__()
        self.settings, self.strides = settings, strides
        per_map = len(settings.anchor_ratios) * len(settings.anchor_sizes[0])
        self.head = RPNHead(channels, per_map)
        self.matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)

    def forward(
        self, features: Sequence[Float[Tensor, "N C _ _"]], sizes: list[tuple[int, int]], targets: list[Target] | None
    ) -> tuple[list[Proposals], dict[str, Tensor]]:
        """The proposals of each image, and in training the losses. `sizes` are (height, width) before padding."""
        outputs = self.outputs(features)
        losses = {} if targets is None else self.losses(outputs, targets)
        return self.propose(outputs, sizes), losses

    def outputs(self, features: Sequence[Float[Tensor, "N C _ _"]]) -> Outputs:
        """Anchors, and the logits and deltas of each."""
        maps, deltas = self.head(list(features))
        anchors = list[Tensor]()
        for x, sizes, stride in zip(features, self.settings.anchor_sizes, self.strides, strict=True):
            cell = cell_anchors(sizes, self.settings.anchor_ratios).to(x.device)
            anchors.append(grid_anchors(cell, x.shape[2], x.shape[3], stride))
        logits = [x.permute(0, 2, 3, 1).flatten(1).float() for x in maps]  # under autocast, bf16 has 8 bits for pixels
        return Outputs(anchors, logits, [x.permute(0, 2, 3, 1).reshape(len(x), -1, 4).float() for x in deltas])

    @torch.no_grad()
    def propose(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Proposals]:
        """The best boxes of each feature map after NMS; of those, the best over all maps."""
        which = 0 if self.training else 1
        boxes, logits, level = list[Tensor](), list[Tensor](), list[Tensor]()
        for index, (anchors, score, deltas) in enumerate(zip(*outputs, strict=True)):
            top, chosen = score.topk(min(self.settings.counts.before_nms[which], score.shape[1]), dim=1)
            moved = deltas.gather(1, chosen[:, :, None].expand(-1, -1, 4))
            decoded = RPN_CODER.decode_single(moved.flatten(0, 1), anchors[chosen].flatten(0, 1))
            boxes.append(decoded.view_as(moved))
            logits.append(top)
            level.append(torch.full_like(chosen, index))
        images = zip(torch.cat(boxes, 1), torch.cat(logits, 1), torch.cat(level, 1), sizes, strict=True)
        return [self._chosen(*image, count=self.settings.counts.after_nms[which]) for image in images]

    def _chosen(
        self,
        boxes: Float[Tensor, "n 4"],
        logits: Float[Tensor, "n"],
        level: Int[Tensor, "n"],
        size: tuple[int, int],
        *,
        count: int,
    ) -> Proposals:
        finite = boxes.isfinite().all(dim=1) & logits.isfinite()
        boxes = clip_boxes_to_image(boxes, size)
        keep = torch.where(finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[0]
        keep = keep[batched_nms(boxes[keep], logits[keep], level[keep], NMS_IOU)][:count]
        return Proposals(boxes[keep], logits[keep])

    @torch.no_grad()
    def labels(
        self, anchors: Float[Tensor, "m 4"], target: Target
    ) -> tuple[Int[Tensor, "m"], Float[Tensor, "m 4"] | None]:
        """For each anchor of one image 1 (object), 0 (background) or -1 (not sampled), and the box of its object."""
        matched, kind = match_boxes(target["boxes"], anchors, self.matcher)
        positive, negative = subsample(kind, self.settings.anchors_sampled, 0.5)
        label = torch.full_like(kind, -1)
        label[positive], label[negative] = 1, 0
        return label, target["boxes"][matched] if len(target["boxes"]) else None

    def losses(self, outputs: Outputs, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy and L1, summed over the sampled anchors, divided by 256 for each image (difference 3)."""
        anchors = torch.cat(outputs.anchors)
        logits, deltas = torch.cat(outputs.logits, 1), torch.cat(outputs.deltas, 1)
        kinds, parts = list[Tensor](), [deltas.sum() * 0]
        for image, target in enumerate(targets):
            label, objects = self.labels(anchors, target)
            kinds.append(label)
            if objects is not None:
                positive = torch.where(label == 1)[0]
                wanted = RPN_CODER.encode_single(objects[positive], anchors[positive])
                parts.append(l1_loss(deltas[image, positive], wanted, reduction="sum"))
        kind = torch.stack(kinds)
        known = kind >= 0
        objectness = binary_cross_entropy_with_logits(logits[known], kind[known].to(logits.dtype), reduction="sum")
        sampled = self.settings.anchors_sampled * len(targets)
        return {"loss_rpn_cls": objectness / sampled, "loss_rpn_loc": torch.stack(parts).sum() / sampled}
