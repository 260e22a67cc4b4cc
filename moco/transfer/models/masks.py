"""The mask branch (Mask R-CNN, arXiv:1703.06870, Sec. 3): targets from polygons, loss, and masks at the image's size.

torchvision cuts its targets out of bitmaps and pastes at whole pixels; Detectron2 rasterizes polygons inside of the box
and pastes by bilinear sampling (docs/transfer.md, difference 10).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align

from moco.transfer.models.boxes import Detections
from moco.transfer.models.head_branch import Branch
from moco.transfer.models.norms import RoIBatchNorm
from moco.transfer.models.pooling import Pool
from moco.transfer.models.sampling import SampledRegions, Target
from moco.transfer.models.settings import Settings
from moco.transfer.optional_packages import require

PolygonList = Sequence[np.ndarray]  # of one object: the parts, each flat x0 y0 x1 y1 ... [pixels]
THRESHOLD = 0.5


class MaskBranch(Branch):
    """RoI features to a mask of twice their size for each class.

    Args:
        convs: 3x3 convolutions before the deconvolution: 4, and none in C4.
    """

    target = "masks"

    def __init__(self, channels: int, settings: Settings, *, pool: Pool, convs: int) -> None:
        super().__init__()
        self.pool, width = pool, settings.mask_channels
        norm = RoIBatchNorm if settings.head_norm else None
        self.head = MaskRCNNHeads(channels, [width] * convs, 1, norm_layer=norm) if convs else nn.Sequential()
        self.predictor = MaskRCNNPredictor(width if convs else channels, width, settings.num_classes)
        nn.init.normal_(self.predictor.get_parameter("mask_fcn_logits.weight"), std=0.001)  # difference 5
        for layer in ("conv5_mask", "mask_fcn_logits"):
            nn.init.zeros_(self.predictor.get_parameter(f"{layer}.bias"))

    def forward(self, x: Float[Tensor, "R D m m"]) -> Float[Tensor, "R K M M"]:
        """The logits."""
        return self.predictor(self.head(x)).float()

    def losses(
        self, x: Float[Tensor, "R D m m"], samples: list[SampledRegions], targets: list[Target]
    ) -> dict[str, Tensor]:
        """The mean cross entropy of the masks of the objects' classes."""
        logits, classes = self(x), torch.cat([sample.classes for sample in samples])
        if len(classes) == 0:
            return {"loss_mask": logits.sum() * 0}
        wanted = torch.cat([mask_targets(*pair, logits.shape[-1]) for pair in zip(samples, targets, strict=True)])
        logits = logits[torch.arange(len(classes), device=classes.device), classes]
        return {"loss_mask": binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype))}

    def predict(self, x: Float[Tensor, "R D m m"], detections: list[Detections]) -> None:
        """Add "mask_probs" n x M x M: the probabilities on a grid over each box, for its class."""
        labels = torch.cat([each["labels"] for each in detections])
        probs = self(x)[torch.arange(len(labels), device=labels.device), labels].sigmoid()
        for each, part in zip(detections, probs.split([len(each["labels"]) for each in detections]), strict=True):
            each["mask_probs"] = part


def mask_targets(sample: SampledRegions, target: Target, side: int) -> Bool[Tensor, "R M M"]:
    """The target mask of each RoI: the part of its object that is inside of its box."""
    if len(sample.boxes) == 0:
        return torch.zeros(0, side, side, dtype=torch.bool, device=sample.boxes.device)
    masks = target["masks"]
    if isinstance(masks, Tensor):
        rois = torch.cat([sample.matched[:, None].to(sample.boxes), sample.boxes], dim=1)
        return roi_align(masks[:, None].to(rois), rois, (side, side), 1.0, 0, True)[:, 0] >= THRESHOLD
    boxes, matched = sample.boxes.cpu().numpy(), sample.matched.tolist()
    rows = [rasterize(masks[index], box, side) for index, box in zip(matched, boxes, strict=True)]
    return torch.from_numpy(np.stack(rows)).to(sample.boxes.device)


def rasterize(polygons: PolygonList, box: np.ndarray, side: int) -> np.ndarray:
    """Which of the `side` x `side` cells of the box are covered by the polygons, by COCO's routine.

    Raises:
        ImportError: pycocotools is not installed.
    """
    mask = require("pycocotools.mask", task="training on polygons")
    origin, extent = box[:2], np.maximum(box[2:] - box[:2], np.float32(0.1))
    scale = np.float32(side) / extent
    flat = [((np.asarray(part, np.float64).reshape(-1, 2) - origin) * scale).ravel().tolist() for part in polygons]
    if not flat:
        return np.zeros((side, side), dtype=bool)
    return mask.decode(mask.merge(mask.frPyObjects(flat, side, side))).astype(bool)


def paste(probs: Float[Tensor, "n M M"], boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> Bool[Tensor, "n H W"]:
    """Masks of an image of `size` (height, width), from probabilities on a grid over each box."""
    height, width = size
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    for mask, prob, box in zip(masks, probs, boxes, strict=True):
        x0, y0, x1, y1 = box.tolist()
        left, right = max(math.floor(x0) - 1, 0), min(math.ceil(x1) + 1, width)
        top, bottom = max(math.floor(y0) - 1, 0), min(math.ceil(y1) + 1, height)
        if left >= right or top >= bottom:
            continue
        x = (torch.arange(left, right, device=box.device) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (torch.arange(top, bottom, device=box.device) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack(torch.broadcast_tensors(x[None], y[:, None]), dim=-1)
        sampled = grid_sample(prob[None, None], grid[None].to(prob.dtype), align_corners=False)[0, 0]
        mask[top:bottom, left:right] = sampled >= THRESHOLD
    return masks
