"""Detectors under bf16 autocast: boxes stay in float32, whose pixels are exact; bf16 has 8 bits."""

import pytest
import torch

from moco.transfer.models.fcn import build_segmenter
from tests.transfer.narrow_resnet import images, network
from tests.transfer.recorded import in_order, recorded


@pytest.mark.parametrize("name", ["c4_mask", "fpn_keypoint"])
def test_losses_and_boxes_are_float32_and_near_those_without_autocast(name: str):
    file = recorded(name)
    detector = file.detector().train()
    with in_order(), torch.autocast("cpu", torch.bfloat16):
        losses = detector(file.images(), file.targets())
    for loss, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(file[f"train/loss/{loss}"].item(), rel=0.3, abs=0.05)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = detector.eval().rpn.outputs(detector.backbone(detector.batch(file.images())))
        boxes = detector.rpn.propose(outputs, file.own())[0].boxes
        found = detector(file.images())[0]
    assert boxes.dtype == found["boxes"].dtype == torch.float32
    assert not torch.equal(boxes, boxes.bfloat16().float())
    for level, anchors in zip(detector.settings.anchor_sizes, outputs.anchors, strict=True):
        assert anchors.dtype == torch.float32, level


def test_segmentation_has_a_loss_in_float32():
    torch.manual_seed(0)
    fcn = build_segmenter(network(), 3).eval()
    labels = torch.randint(0, 3, (2, 32, 32))
    plain = fcn.loss(images(32, 32), labels)["loss_seg"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = fcn.loss(images(32, 32), labels)["loss_seg"]
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=0.05)
