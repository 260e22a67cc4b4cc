"""A deliberate mistake in each of the differences between torchvision and Detectron2 falls outside the tolerances.

The numbers are those that the modules' docstrings give the differences.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes
from torchvision.ops import batched_nms

from moco.encoders.resnet import Bottleneck
from moco.transfer.models import boxes, heads, keypoints, masks, pooling, proposals, sampling, scale_detections
from moco.transfer.models.detector import Detector
from moco.transfer.models.pooling import Pool
from tests.transfer.compare import outside_of_detections, outside_of_training
from tests.transfer.recorded import Recorded, recorded

Plant = Callable[[Detector, pytest.MonkeyPatch], object]


class Mistake(NamedTuple):
    what: str
    file: str
    plant: Plant
    training: bool = False  # found in a training step, else in the detections


def pools(**changes: object) -> Plant:
    """Every RoI is cut out in another way."""

    def plant(detector: Detector, patch: pytest.MonkeyPatch) -> None:
        for module in detector.modules():
            if isinstance(getattr(module, "pool", None), Pool):
                module.pool = module.pool._replace(**changes)

    return plant


def settings(**changes: object) -> Plant:
    def plant(detector: Detector, patch: pytest.MonkeyPatch) -> None:
        for module in detector.modules():
            if hasattr(module, "settings"):
                module.settings = module.settings.but(**changes)

    return plant


def torchvision_anchors(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    def cell(sizes, ratios):
        return AnchorGenerator().generate_anchors(sizes, ratios)

    patch.setattr(proposals, "cell_anchors", cell)  # rounded, and by ratio first


def rounded_anchors(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    right = proposals.cell_anchors
    patch.setattr(proposals, "cell_anchors", lambda sizes, ratios: right(sizes, ratios).round())


def anchors_by_ratio(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    right = proposals.cell_anchors

    def cell(sizes, ratios):
        return right(sizes, ratios).view(len(sizes), len(ratios), 4).transpose(0, 1).reshape(-1, 4)

    patch.setattr(proposals, "cell_anchors", cell)


def inferred_stride(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    right = proposals.grid_anchors
    patch.setattr(proposals, "grid_anchors", lambda cell, h, w, stride: right(cell, h, w, 76 // h))


def rpn_smooth_l1(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    def loss(x, y, reduction):
        return nn.functional.smooth_l1_loss(x, y, beta=1 / 9, reduction=reduction)

    patch.setattr(proposals, "l1_loss", loss)


def background_first(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    for x in detector.heads.box_predictor.cls_score.parameters():
        x.data = x.data.roll(1, dims=0)


def without_box_norm(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    detector.heads.res5.norm = nn.Identity()


def norm_behind_the_mean(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    norm = detector.heads.res5.norm
    detector.heads.res5.norm = nn.Identity()
    detector.heads.res5.norm_behind = nn.Identity()
    detector.heads.box_predictor.register_forward_pre_hook(lambda _, x: norm(x[0][:, :, None, None])[:, :, 0, 0])
    norm.requires_grad_(True)
    detector.heads.add_module("moved", norm)


def res5_twice(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    """torchvision's box head and mask head each run the stage."""

    def twice(module, inputs, y):
        for child in module.children():
            inputs = (child(*inputs),)

    detector.heads.res5.register_forward_hook(twice)


def integer_paste(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    def paste(probs, found, size):
        return paste_masks_in_image(probs[:, None], found, size)[:, 0] >= 0.5

    patch.setattr(scale_detections, "paste", paste)


def bitmap_targets(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    def targets(sample, target, side):
        bitmaps = [masks.rasterize(mask, np.array([0, 0, 288, 288], np.float32), 288) for mask in target["masks"]]
        bitmaps = torch.from_numpy(np.stack(bitmaps))
        return project_masks_on_boxes(bitmaps, sample.boxes, sample.matched, side)

    patch.setattr(masks, "mask_targets", targets)


def padded_to_32(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    detector.settings = detector.settings.but(multiple=32)


def keypoint_logits(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    right = keypoints.heatmaps_to_keypoints
    kept = []

    def found(maps, rois):
        kept.append(right(maps, rois))
        return kept[-1]

    patch.setattr(keypoints, "heatmaps_to_keypoints", found)
    branch = detector.heads.branches["keypoints"]
    predict = branch.predict

    def wrong(x, detections):
        predict(x, detections)
        for (_, logits), each in zip(kept, detections, strict=True):
            each["keypoints"][..., 2] = logits

    patch.setattr(branch, "predict", wrong)


def without_the_objects(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    """Objects do not join the proposals."""
    right = sampling.sample_rois

    def sampled(found, target, **kwargs):
        first = len(found)
        with patch.context() as inner:
            inner.setattr(
                sampling.torch, "cat", lambda x, *a: x[0] if x[0].shape == (first, 4) else torch.concat(x, *a)
            )
            return right(found, target, **kwargs)

    patch.setattr(heads, "sample_rois", sampled)


def matcher(high: float, low: float, low_quality: bool) -> Plant:
    def plant(detector: Detector, patch: pytest.MonkeyPatch) -> None:
        detector.rpn.matcher = Matcher(high, low, allow_low_quality_matches=low_quality)

    return plant


def bgr(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    weight = detector.backbone.body.conv1.weight
    weight.data = weight.data.flip(1)


def stride_in_the_1x1(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    for module in detector.modules():
        if isinstance(module, Bottleneck) and module.conv2.stride == (2, 2):
            module.conv1.stride, module.conv2.stride = (2, 2), (1, 1)


def other_epsilon(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def frozen_backbone(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    train = detector.train

    def frozen(mode: bool = True) -> Detector:
        train(mode)
        for module in detector.backbone.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return detector

    patch.setattr(detector, "train", frozen)


def swapped_pyramid(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    first, second = detector.backbone.fpn.layer_blocks[0][0], detector.backbone.fpn.layer_blocks[1][0]
    first.weight, second.weight = second.weight, first.weight


def scaled_to_one(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    detector.mean = detector.mean / 255 * 254


def other_level(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    right = pooling.levels
    patch.setattr(pooling, "levels", lambda found, strides: (right(found, strides) + 1).clamp(max=len(strides) - 1))


def nms_iou(module: object, value: float) -> Plant:
    return lambda detector, patch: patch.setattr(module, "NMS_IOU", value)


def one_nms_for_all_maps(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        proposals, "batched_nms", lambda found, scores, level, iou: batched_nms(found, scores, level * 0, iou)
    )


def other_coder(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(boxes, "BOX_CODER", sampling.RPN_CODER)


def keypoints_per_roi(detector: Detector, patch: pytest.MonkeyPatch) -> None:
    """Divided by all keypoints of the RoIs, not by the visible ones."""

    def loss(logits, position):
        return nn.functional.cross_entropy(logits, position, reduction="sum") / (17 * 10)

    patch.setattr(keypoints, "cross_entropy", loss)


MISTAKES = [
    Mistake("1: RoIAlign is not aligned", "fpn_mask", pools(aligned=False)),
    Mistake("1: RoIAlign is not aligned", "c4_box", pools(aligned=False)),
    Mistake("1: 2 x 2 samples in each cell", "fpn_keypoint", pools(samples=2)),
    Mistake("1: 2 x 2 samples in each cell", "c4_mask", pools(samples=2)),
    Mistake("1: RoIs from the next map", "fpn_mask", other_level),
    Mistake("2: torchvision's anchors", "c4_box", torchvision_anchors),
    Mistake("2: rounded anchors", "fpn_mask", rounded_anchors),
    Mistake("2: anchors by ratio, then size", "c4_box", anchors_by_ratio),
    Mistake("2: inferred stride", "c4_box", inferred_stride),
    Mistake("3: RPN with smooth L1", "c4_box", rpn_smooth_l1, True),
    Mistake("4: box loss with beta 1/9", "fpn_mask", settings(box_beta=1 / 9), True),
    Mistake("4: keypoint detector with L1", "fpn_keypoint", settings(box_beta=0.0), True),
    Mistake("6: the background comes first", "fpn_mask", background_first),
    Mistake("7: no BN behind res5", "c4_box", without_box_norm),
    Mistake("7: the BN behind the mean", "c4_box", norm_behind_the_mean, True),
    Mistake("7: res5 runs twice", "c4_mask", res5_twice, True),
    Mistake("9: C4 padded to 32", "c4_box", padded_to_32),
    Mistake("10: pasted at whole pixels", "fpn_mask", integer_paste),
    Mistake("10: mask targets from bitmaps", "c4_mask", bitmap_targets, True),
    Mistake("11: fewer proposals", "fpn_mask", settings(counts=proposals.Settings(5).counts)),
    Mistake("keypoints with logits as scores", "fpn_keypoint", keypoint_logits),
    Mistake("keypoint loss over all keypoints", "fpn_keypoint", keypoints_per_roi, True),
    Mistake("objects are no proposals", "c4_box", without_the_objects, True),
    Mistake("RPN without low-quality matches", "fpn_mask", matcher(0.7, 0.3, False), True),
    Mistake("RPN positive from IoU 0.5", "c4_box", matcher(0.5, 0.3, True), True),
    Mistake("BGR", "c4_box", bgr),
    Mistake("stride in the 1x1", "c4_box", stride_in_the_1x1),
    Mistake("BN with epsilon 1e-3", "fpn_mask", other_epsilon),
    Mistake("frozen BN", "fpn_mask", frozen_backbone, True),
    Mistake("two convolutions of the FPN swapped", "fpn_mask", swapped_pyramid),
    Mistake("another mean of the pixels", "c4_box", scaled_to_one),
    Mistake("NMS of proposals at 0.6", "fpn_mask", nms_iou(proposals, 0.6)),
    Mistake("NMS of detections at 0.7", "fpn_keypoint", nms_iou(boxes, 0.7)),
    Mistake("one NMS for all maps", "fpn_mask", one_nms_for_all_maps),
    Mistake("box deltas without weights", "c4_box", other_coder),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.what} ({mistake.file})")
def test_a_planted_mistake_falls_outside_the_tolerances(mistake: Mistake, monkeypatch: pytest.MonkeyPatch):
    file = recorded(mistake.file)
    detector = file.detector()
    mistake.plant(detector, monkeypatch)
    assert outside(file, detector, training=mistake.training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["c4_box", "c4_mask", "fpn_mask", "fpn_keypoint"])
def test_without_a_planted_mistake_all_values_are_within_the_tolerances(name: str, training: bool):
    file = recorded(name)
    assert outside(file, file.detector(), training=training) == []


def outside(file: Recorded, detector: Detector, *, training: bool) -> list[str]:
    return outside_of_training(file, detector) if training else outside_of_detections(file, detector)
