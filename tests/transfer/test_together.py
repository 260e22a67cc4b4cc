"""Annotations, detectors and metrics fit together."""

from pathlib import Path

import numpy as np
import torch

from moco.encoders.resnet import NETS, ResNet
from moco.transfer.detection.targets import targets
from moco.transfer.models.build import build_detector
from moco.transfer.models.scale_detections import for_metrics
from moco.transfer.models.settings import ProposalCounts, paper_settings
from moco.transfer.readers.formats import read_scenes
from moco.transfer.readers.shared import ReadOptions
from tests.transfer.sample_coco import random_truth, write


def test_annotations_train_a_detector_and_its_detections_are_scored(tmp_path: Path):
    from moco.transfer.metrics.coco import coco_scores

    write(tmp_path, random_truth(np.random.default_rng(3)))
    scenes = read_scenes(tmp_path, ReadOptions(split="val2017"))
    torch.manual_seed(0)
    settings = paper_settings("instance", "fpn", 3).but(
        fpn_channels=8, fc_channels=8, mask_channels=8, counts=ProposalCounts((50, 50), (20, 20)), score_threshold=0.0
    )
    detector = build_detector(ResNet(NETS["resnet10"], width=0.125), "instance", "fpn", 3, settings=settings).train()
    sizes = [(scene.height, scene.width) for scene in scenes.scenes]
    images = [torch.zeros(3, *size, dtype=torch.uint8) for size in sizes]
    losses = detector(images, [targets(scene) for scene in scenes.scenes])
    assert all(loss.isfinite() for loss in losses.values())
    found = [for_metrics(each) for each in detector.eval()(images, sizes=sizes)]
    assert any(len(each) for each in found)
    for kind in ("bbox", "segm"):
        assert coco_scores(scenes, found, kind=kind, engine="reference")
