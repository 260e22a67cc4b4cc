"""A narrow detector with random weights learns to find coloured rectangles that it has not seen."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from moco.encoders.resnet import NETS, ResNet
from moco.transfer.models.build import build_detector
from moco.transfer.models.detector import Detector
from moco.transfer.models.norms import parameter_groups
from moco.transfer.models.settings import ProposalCounts, paper_settings

STEPS, BATCH, SCENES = 250, 4, 20


def scene(rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One or two rectangles, red (0) or green (1), on grey noise."""
    image = rng.integers(90, 130, (3, 96, 96), dtype=np.uint8)
    boxes, labels = list[list[int]](), list[int]()
    for column in range(int(rng.integers(1, 3))):
        width, height = rng.integers(20, 40, 2)
        x, y = 48 * column + rng.integers(0, 48 - width), rng.integers(0, 96 - height)
        label = int(rng.integers(2))
        image[label, y : y + height, x : x + width] += 110
        boxes.append([x, y, x + width, y + height])
        labels.append(label)
    return torch.from_numpy(image), {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)}


def train(detector: Detector, rng: np.random.Generator) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(detector, 1e-4), 1e-3)
    detector.train()
    for _ in range(STEPS):
        images, targets = zip(*(scene(rng) for _ in range(BATCH)), strict=True)
        loss = sum(detector(list(images), list(targets)).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def recall_and_precision(detector: Detector, rng: np.random.Generator) -> tuple[float, float]:
    """At a score of 0.5 and an overlap of 0.5, in the right class."""
    detector.eval()
    hits = objects = detections = 0
    for _ in range(SCENES):
        image, target = scene(rng)
        (found,) = detector([image])
        sure = found["scores"] > 0.5
        detections += int(sure.sum())
        for box, label in zip(target["boxes"], target["labels"], strict=True):
            of_class = found["boxes"][sure & (found["labels"] == label)]
            hits += bool(len(of_class) and box_iou(box[None], of_class).max() > 0.5)
            objects += 1
    return hits / objects, hits / max(detections, 1)


@pytest.mark.slow
def test_a_narrow_fpn_detector_learns_to_find_rectangles():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    settings = paper_settings("detect", "fpn", 2).with_anchors_times(0.5).but(
        fpn_channels=32, fc_channels=64, counts=ProposalCounts((200, 200), (50, 50)), rois_sampled=32
    )  # fmt: skip
    detector = build_detector(ResNet(NETS["resnet50"], width=0.125), "detect", "fpn", 2, settings=settings)
    train(detector, rng)
    recall, precision = recall_and_precision(detector, rng)
    assert recall > 0.8
    assert precision > 0.6
