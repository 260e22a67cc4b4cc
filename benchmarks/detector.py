"""A training step of a detector: ours against torchvision's of equal shape, on the same narrow ResNet-50.

torchvision's detector keeps its own anchors, RoIAlign with 2 x 2 samples per cell, and smooth L1 loss. It takes as many
proposals and RoIs as ours, and does not resize.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.measure import Result, Row, Work, compare
from moco.encoders.resnet import NETS, ResNet
from moco.transfer.models.build import build_detector
from moco.transfer.models.settings import Arch, ProposalCounts, Settings, Task, paper_settings

SIZE, IMAGES, OBJECTS, CLASSES = (320, 384), 2, 6, 20
PROPOSALS, ROIS = 500, 256  # per image
CHANNELS = 32  # of the FPN; an eighth, like the network


def network(width: float = 0.125) -> ResNet:
    torch.manual_seed(0)
    return ResNet(NETS["resnet50"], width=width)


def settings(task: Task, arch: Arch) -> Settings:
    return paper_settings(task, arch, CLASSES).but(
        counts=ProposalCounts((2000, 1000), (PROPOSALS, PROPOSALS)), rois_sampled=ROIS,
        fpn_channels=CHANNELS, fc_channels=256, mask_channels=CHANNELS, fpn_norm=False, box_norm=False,
    )  # fmt: skip


def batch() -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Two images with six objects each; masks are bitmaps, which both accept."""
    rng = torch.Generator().manual_seed(1)
    images, targets = list[Tensor](), list[dict[str, Any]]()
    for _ in range(IMAGES):
        images.append(torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=rng))
        corner = torch.rand(OBJECTS, 2, generator=rng) * 200
        boxes = torch.cat([corner, corner + 20 + torch.rand(OBJECTS, 2, generator=rng) * 90], dim=1)
        labels = torch.randint(0, CLASSES, (OBJECTS,), generator=rng)
        masks = torch.zeros(OBJECTS, *SIZE, dtype=torch.uint8)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = 1
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    return images, targets


def ours(task: Task, arch: Arch) -> Work:
    detector = build_detector(network(), task, arch, CLASSES, settings=settings(task, arch)).train()
    return partial(step, detector, *batch(), sgd(detector))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)


def step(
    model: nn.Module, images: list[Tensor], targets: list[dict[str, Any]], optimizer: torch.optim.Optimizer
) -> None:
    losses = model(images, targets)
    optimizer.zero_grad(set_to_none=True)
    sum(losses.values()).backward()  # pyright: ignore
    optimizer.step()


def torchvisions(task: Task, arch: Arch) -> Work:
    """The same step of torchvision's detector, which expects images in [0, 1] and uses class 0 for the background."""
    limits = {
        "min_size": SIZE[0], "max_size": SIZE[1], "rpn_pre_nms_top_n_train": 2000,
        "rpn_post_nms_top_n_train": PROPOSALS, "box_batch_size_per_image": ROIS,
    }  # fmt: skip
    detector = (pyramid if arch == "fpn" else single_map)(task, limits).train()
    images, targets = batch()
    images = [image / 255 for image in images]
    targets = [target | {"labels": target["labels"] + 1} for target in targets]
    return partial(step, detector, images, targets, sgd(detector))


def pyramid(task: Task, limits: dict[str, int]) -> nn.Module:
    body = network()
    layers = {f"layer{index}": str(index - 1) for index in (1, 2, 3, 4)}
    channels = [body.num_features // 2**index for index in (3, 2, 1, 0)]
    backbone = BackboneWithFPN(body, layers, channels, CHANNELS)
    kind = MaskRCNN if task == "instance" else FasterRCNN
    detector = kind(backbone, CLASSES + 1, **limits)
    inputs = CHANNELS * 7 * 7
    detector.roi_heads.box_head.fc6 = nn.Linear(inputs, 256)
    detector.roi_heads.box_head.fc7 = nn.Linear(256, 256)
    detector.roi_heads.box_predictor = FastRCNNPredictor(256, CLASSES + 1)
    if task == "instance":
        narrow_masks(detector)
    return detector


def narrow_masks(detector: nn.Module) -> None:
    """The mask head as narrow as ours."""
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

    detector.roi_heads.mask_head = MaskRCNNHeads(CHANNELS, (CHANNELS,) * 4, 1)  # pyright: ignore
    detector.roi_heads.mask_predictor = MaskRCNNPredictor(CHANNELS, CHANNELS, CLASSES + 1)  # pyright: ignore


class Third(nn.Sequential):
    """The first three stages as a backbone for torchvision."""

    def __init__(self, body: ResNet) -> None:
        super().__init__(body.conv1, body.bn1, body.relu, body.maxpool, body.layer1, body.layer2, body.layer3)
        self.out_channels = body.num_features // 2


class Last(nn.Module):
    """The last stage and its mean, as a box head."""

    def __init__(self, body: ResNet) -> None:
        super().__init__()
        self.layer4 = body.layer4

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(x).mean(dim=(2, 3))


def single_map(task: Task, limits: dict[str, int]) -> nn.Module:
    body = network()
    anchors = AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),))
    return FasterRCNN(
        Third(body), rpn_anchor_generator=anchors, box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2), box_head=Last(body),
        box_predictor=FastRCNNPredictor(body.num_features, CLASSES + 1), **limits,
    )  # fmt: skip


def row(task: Task, arch: Arch, rounds: int) -> Iterator[Result]:
    """Our step against torchvision's."""
    name = f"detector/{task}-{arch}"
    yield compare(name, ours(task, arch), torchvisions(task, arch), against="torchvision's detector", rounds=rounds)


ROWS = [
    Row("detector/detect-fpn", partial(row, "detect", "fpn"), slow=True),
    Row("detector/instance-fpn", partial(row, "instance", "fpn"), slow=True),
    Row("detector/detect-c4", partial(row, "detect", "c4"), slow=True),
]
