"""The recorded outputs of Detectron2 in tests/fixtures/detection, and our detectors with the recorded weights."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from moco.encoders.resnet import NETS, ResNet
from moco.transfer.models.build import build_detector
from moco.transfer.models.detector import Detector
from moco.transfer.models.detectron2_names import load_detectron2
from moco.transfer.models.settings import ProposalCounts, Settings, paper_settings

FOLDER = Path(__file__).parent.parent / "fixtures/detection"
DETECTORS = {
    "c4_box": ("detect", "c4", ("res4",)),
    "c4_mask": ("instance", "c4", ("res4",)),
    "fpn_mask": ("instance", "fpn", ("p2", "p3", "p4", "p5", "p6")),
    "fpn_keypoint": ("keypoints", "fpn", ("p2", "p3", "p4", "p5", "p6")),
}


class Recorded(NamedTuple):
    """One file: its arrays, and its configuration."""

    name: str
    arrays: dict[str, np.ndarray]
    config: dict[str, Any]

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def images(self) -> list[Tensor]:
        return [self["image/0"], self["image/1"]]

    def own(self) -> list[tuple[int, int]]:
        return [(image.shape[1], image.shape[2]) for image in self.images()]

    def sizes(self) -> list[tuple[int, int]]:
        return [(int(height), int(width)) for height, width in (self["image/0/out_size"], self["image/1/out_size"])]

    def targets(self) -> list[dict[str, Any]]:
        return [self._target(image) for image in (0, 1)]

    def _target(self, image: int) -> dict[str, Any]:
        target: dict[str, Any] = {"boxes": self[f"gt/{image}/boxes"], "labels": self[f"gt/{image}/classes"]}
        if f"gt/{image}/keypoints" in self.arrays:
            target["keypoints"] = self[f"gt/{image}/keypoints"]
        if f"gt/{image}/polygon/0/0" in self.arrays:
            target["masks"] = [self.parts(f"gt/{image}/polygon/{j}/") for j in range(len(target["boxes"]))]
        return target

    def parts(self, prefix: str) -> list[np.ndarray]:
        """The polygons of one object."""
        return [self.arrays[key] for key in sorted(self.arrays) if key.startswith(prefix)]

    def settings(self) -> Settings:
        """The paper's, with the file's narrow layers and few proposals."""
        task, arch, _ = DETECTORS[self.name]
        model, rpn = self.config["MODEL"], self.config["MODEL"]["RPN"]
        before, after = (
            (rpn[f"{when}_NMS_TOPK_TRAIN"], rpn[f"{when}_NMS_TOPK_TEST"]) for when in ("PRE", "POST")
        )  # fmt: skip
        return paper_settings(task, arch, model["ROI_HEADS"]["NUM_CLASSES"]).but(
            counts=ProposalCounts(before, after),
            anchors_sampled=rpn["BATCH_SIZE_PER_IMAGE"],
            rois_sampled=model["ROI_HEADS"]["BATCH_SIZE_PER_IMAGE"],
            max_detections=self.config["TEST"]["DETECTIONS_PER_IMAGE"],
            fpn_channels=32,
            fc_channels=64,
            mask_channels=32,
            keypoint_channels=32,
            head_norm=self.name == "fpn_mask",
        )

    def detector(self, settings: Settings | None = None) -> Detector:
        """With the recorded weights."""
        task, arch, _ = DETECTORS[self.name]
        settings = settings or self.settings()
        network = ResNet(NETS["resnet50"], width=0.125)
        detector = build_detector(network, task, arch, settings.num_classes, settings=settings)
        weights = {key.removeprefix("weight/"): self[key] for key in self.arrays if key.startswith("weight/")}
        load_detectron2(detector, weights)
        return detector


@cache
def recorded(name: str) -> Recorded:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return Recorded(name, arrays, json.loads(str(arrays["config"])) if "config" in arrays else {})


def in_order() -> Any:
    """While open, what is drawn at random are the first ones, as when the files were recorded."""
    return patch("torch.randperm", lambda n, **_: torch.arange(n))
