"""Sample the anchors and proposals that are used in the losses, with their training targets."""

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou

Target = dict[str, Any]  # "boxes" n x 4 (x0, y0, x1, y1), "labels" n (0 ... K-1), and "masks", "keypoints", ...
RPN_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
BOX_CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))


def check_target(target: Target, num_classes: int, needed: Collection[str]) -> None:
    """Check a training target.

    Args:
        needed: the annotations that branches need besides boxes and labels: "masks", "keypoints", "densepose".

    Raises:
        ValueError: something is missing, or has a wrong shape, type or value.
    """
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point() or labels.shape != boxes.shape[:1]:
        raise ValueError(
            f'a target needs float "boxes" n x 4 and "labels" n, got {tuple(boxes.shape)} of {boxes.dtype} and '
            f"{tuple(labels.shape)}"
        )
    if not (boxes.isfinite().all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise ValueError(f"boxes must be x0 y0 x1 y1 with x0 < x1 and y0 < y1, got {boxes.tolist()}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(f"labels must be 0 to {num_classes - 1}, got {sorted(set(labels.tolist()))}")
    for name in needed if len(boxes) else ():
        if name not in target or len(target[name]) != len(boxes):
            count = f"{len(target[name])}" if name in target else "none"
            raise ValueError(f'a target needs "{name}" for each of its {len(boxes)} boxes, got {count}')


class SampledRegions(NamedTuple):
    """The sampled RoIs of one image, those matched to objects first."""

    boxes: Float[Tensor, "n 4"]
    classes: Int[Tensor, "n"]  # K is the background
    matched: Int[Tensor, "n"]  # index of the object in the target; meaningless for background

    def foreground(self, num_classes: int) -> "SampledRegions":
        keep = self.classes < num_classes
        return SampledRegions(self.boxes[keep], self.classes[keep], self.matched[keep])


def match_boxes(
    objects: Float[Tensor, "n 4"], boxes: Float[Tensor, "m 4"], matcher: Matcher
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
    """For each box, the object that it matches best, and its kind: 1 object, 0 background, -1 neither."""
    if len(objects) == 0:
        nothing = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return nothing, nothing.clone()
    matched = matcher(box_iou(objects, boxes))
    kind = torch.where(matched >= 0, 1, torch.where(matched == Matcher.BELOW_LOW_THRESHOLD, 0, -1))
    return matched.clamp(min=0), kind


def subsample(kind: Int[Tensor, "m"], count: int, fraction: float) -> tuple[Int[Tensor, "p"], Int[Tensor, "q"]]:
    """Random indices of `count` boxes: at most `fraction` of them positives (1), the rest negatives (0)."""
    positive, negative = torch.where(kind == 1)[0], torch.where(kind == 0)[0]
    positives = min(len(positive), int(count * fraction))
    negatives = min(len(negative), count - positives)
    # always draw for both, so that the sequence of random numbers is that of the reference
    first = torch.randperm(len(positive), device=kind.device)[:positives]
    second = torch.randperm(len(negative), device=kind.device)[:negatives]
    return positive[first], negative[second]


@torch.no_grad()
def sample_rois(
    proposals: Float[Tensor, "m 4"], target: Target, *, count: int, num_classes: int, fraction: float = 0.25
) -> SampledRegions:
    """Sample `count` RoIs of one image from the proposals, to which the objects themselves are appended."""
    boxes = torch.cat([proposals, target["boxes"]])
    matched, kind = match_boxes(target["boxes"], boxes, Matcher(0.5, 0.5))
    index = torch.cat(subsample(kind, count, fraction))
    matched, kind = matched[index], kind[index]
    classes = torch.full_like(matched, num_classes)
    if len(target["labels"]):
        classes = torch.where(kind == 1, target["labels"][matched], classes)
    return SampledRegions(boxes[index], classes, matched)
