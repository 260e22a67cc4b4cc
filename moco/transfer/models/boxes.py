"""The output layers of the box head, their losses, and detections from their outputs (Fast R-CNN, arXiv:1504.08083)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision.ops import batched_nms, clip_boxes_to_image

from moco.transfer.models.sampling import BOX_CODER, SampledRegions
from moco.transfer.models.settings import Settings

NMS_IOU = 0.5
Detections = dict[
    str, Tensor
]  # of one image: "boxes" n x 4, "scores" n, "labels" n, and those of branches (masks, ...)


class BoxPredictor(nn.Module):
    """RoI features to logits of K classes and the background (the last), and to a box for each class."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, num_classes + 1)
        self.bbox_pred = nn.Linear(channels, 4 * num_classes)
        nn.init.normal_(self.cls_score.weight, std=0.01)  # docs/transfer.md, difference 5
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, x: Float[Tensor, "R D"]) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K 4"]]:
        logits, deltas = self.cls_score(x), self.bbox_pred(x)
        return logits.float(), deltas.unflatten(1, (-1, 4)).float()  # under autocast, bf16 has 8 bits for pixels


def box_losses(
    logits: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R K 4"],
    samples: list[SampledRegions],
    objects: list[Tensor],
    beta: float,
) -> dict[str, Tensor]:
    """Mean cross entropy, and smooth L1 of the boxes of objects, divided by the number of all RoIs (difference 4).

    Args:
        objects: the boxes of the objects in each image.
        beta: of smooth L1; 0: L1.
    """
    classes = torch.cat([sample.classes for sample in samples])
    boxes = torch.cat([sample.boxes for sample in samples])
    positive = torch.where(classes < deltas.shape[1])[0]
    wanted = torch.cat([near(*pair) for pair in zip(samples, objects, strict=True)])
    wanted = BOX_CODER.encode_single(wanted[positive], boxes[positive])
    off = smooth_l1_loss(deltas[positive, classes[positive]], wanted, beta=beta, reduction="sum")
    mean = cross_entropy(logits, classes) if len(classes) else logits.sum() * 0
    return {"loss_cls": mean, "loss_box_reg": off / max(len(classes), 1)}


def near(sample: SampledRegions, objects: Float[Tensor, "n 4"]) -> Float[Tensor, "R 4"]:
    """The box of the object that each RoI is matched to; in an image without objects, the RoI itself."""
    return objects[sample.matched] if len(objects) else sample.boxes


def decode_detections(
    logits: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R K 4"],
    proposals: Float[Tensor, "R 4"],
    size: tuple[int, int],
    settings: Settings,
) -> Detections:
    """The detections in one image of `size` (height, width), by decreasing score."""
    boxes = BOX_CODER.decode_single(deltas.flatten(1), proposals).view(len(proposals), -1, 4)
    finite = logits.isfinite().all(dim=1) & boxes.isfinite().flatten(1).all(dim=1)
    scores = logits.softmax(dim=1)[:, :-1]
    boxes = clip_boxes_to_image(boxes, size)
    roi, label = torch.where((scores > settings.score_threshold) & finite[:, None])
    boxes, scores = boxes[roi, label], scores[roi, label]
    keep = batched_nms(boxes, scores, label, NMS_IOU)[: settings.max_detections]
    return {"boxes": boxes[keep], "scores": scores[keep], "labels": label[keep]}
