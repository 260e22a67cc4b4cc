"""Images in which there is nothing: no object, no proposal of one, no detection."""

from typing import Any

import pytest
import torch

from moco.encoders.resnet import NETS, ResNet
from moco.transfer.models.build import build_detector
from moco.transfer.models.detector import Detector
from moco.transfer.models.settings import ProposalCounts, paper_settings

TASKS = [
    ("detect", "c4"),
    ("instance", "c4"),
    ("instance", "dc5"),
    ("instance", "fpn"),
    ("keypoints", "fpn"),
    ("densepose", "fpn"),
]


def detector(task: Any, arch: Any, **changes: Any) -> Detector:
    torch.manual_seed(0)
    settings = paper_settings(task, arch, 2).but(
        fpn_channels=8, fc_channels=8, mask_channels=8, keypoint_channels=8, head_norm=True, rois_sampled=16,
        counts=ProposalCounts((50, 50), (20, 20)), **changes,
    )  # fmt: skip
    return build_detector(ResNet(NETS["resnet50"], width=0.125), task, arch, 2, settings=settings)


def images() -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize(("task", "arch"), TASKS)
def test_without_objects_every_loss_is_finite_and_every_parameter_has_a_gradient(task: str, arch: str):
    model = detector(task, arch).train()
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = model(images(), [target])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert {name for name, loss in losses.items() if loss != 0} == {"loss_cls", "loss_rpn_cls"}
    assert [name for name, x in model.named_parameters() if x.grad is None] == []


@pytest.mark.parametrize(("task", "arch"), [("keypoints", "fpn"), ("densepose", "fpn")])
def test_objects_without_points_have_no_loss_of_points(task: str, arch: str):
    model = detector(task, arch).train()
    target = {"boxes": torch.tensor([[4.0, 4, 60, 60]]), "labels": torch.tensor([0])}
    target |= {"keypoints": torch.zeros(1, 17, 3), "densepose": [None]}
    losses = model(images(), [target])
    sum(losses.values()).backward()
    points = {name: loss.item() for name, loss in losses.items() if "keypoint" in name or "densepose" in name}
    assert points
    assert set(points.values()) == {0}
    assert losses["loss_box_reg"] > 0
    assert [name for name, x in model.named_parameters() if x.grad is None] == []


@pytest.mark.parametrize(("task", "arch"), TASKS)
def test_without_detections_every_result_is_empty(task: str, arch: str):
    model = detector(task, arch, score_threshold=2.0).eval()
    (found,) = model(images(), sizes=[(32, 40)])
    assert {name: len(value) for name, value in found.items()} == dict.fromkeys(found, 0)
    assert found["boxes"].shape == (0, 4)
    if task == "instance":
        assert found["masks"].shape == (0, 32, 40)
    if task == "keypoints":
        assert found["keypoints"].shape == (0, 17, 3)


def test_a_missing_target_is_an_error():
    with pytest.raises(ValueError, match="a target for each of 1 images, got none"):
        detector("detect", "fpn").train()(images())


BOX, LABEL = torch.tensor([[4.0, 4, 40, 40]]), torch.tensor([0])
BAD = {
    "boxes must be x0 y0 x1 y1": {"boxes": BOX[:, [2, 1, 0, 3]]},
    "with x0 < x1 and y0 < y1": {"boxes": BOX * torch.nan},
    r"labels must be 0 to 1, got \[2\]": {"labels": torch.tensor([2])},
    r"labels must be 0 to 1, got \[-1\]": {"labels": torch.tensor([-1])},
    r'float "boxes" n x 4 and "labels" n, got \(1, 4\) of torch.float32 and \(2,\)': {"labels": torch.tensor([0, 1])},
    r"got \(1, 4\) of torch.int64": {"boxes": BOX.long()},
    '"masks" for each of its 1 boxes, got 0': {"masks": []},
}


@pytest.mark.parametrize("message", BAD)
def test_a_target_that_cannot_be_learned_from_is_refused(message: str):
    model = detector("instance", "fpn").train()
    target = {"boxes": BOX, "labels": LABEL, "masks": torch.ones(1, 64, 80, dtype=torch.bool)}
    model(images(), [target])
    with pytest.raises(ValueError, match=message):
        model(images(), [target | BAD[message]])


def test_a_target_without_what_a_branch_needs_is_refused():
    with pytest.raises(ValueError, match='"keypoints" for each of its 1 boxes, got none'):
        detector("keypoints", "fpn").train()(images(), [{"boxes": BOX, "labels": LABEL}])


def test_no_roi_has_no_box():
    from moco.transfer.models.boxes import BoxPredictor

    logits, boxes = BoxPredictor(8, 3)(torch.zeros(0, 8))
    assert (logits.shape, boxes.shape) == ((0, 4), (0, 3, 4))
