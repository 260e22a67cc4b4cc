"""Detect objects in the test images, and compute scores."""

from collections.abc import Sequence

import numpy as np
import torch

from moco.transfer.detection.loader import eval_images
from moco.transfer.detection.recipe import DetectionRecipe
from moco.transfer.metrics.coco import coco_scores
from moco.transfer.metrics.voc import voc_scores
from moco.transfer.models.detector import Detector
from moco.transfer.models.scale_detections import for_metrics
from moco.transfer.models.settings import Task
from moco.transfer.predicted_objects import Detections
from moco.transfer.scenes import Scene, SceneSet

TASK_METRICS = {"detect": ("bbox",), "instance": ("bbox", "segm"), "keypoints": ("bbox", "keypoints")}
SUFFIX = {"bbox": "", "segm": "_mask", "keypoints": "_keypoints"}


@torch.no_grad()
def detect_in_scenes(
    detector: Detector, scenes: Sequence[Scene], recipe: DetectionRecipe, *, workers: int
) -> list[Detections]:
    """The detections in each scene, in the pixels of its image. The detector is in eval mode afterwards."""
    detector.eval()
    place = next(detector.parameters()).device
    detections: list[Detections] = []
    for image, size in eval_images(scenes, recipe, workers=workers):
        detections.append(for_metrics(detector([image.to(place)], sizes=[size])[0]))
    return detections


def score_detections(scenes: SceneSet, detections: Sequence[Detections], task: Task) -> dict[str, float]:
    """Scores in percent: COCO's AP, AP50 and AP75 of boxes, masks and keypoints; VOC's 11-point AP of boxes."""
    scores: dict[str, float] = {}
    for kind in TASK_METRICS[task]:
        coco = coco_scores(scenes, detections, kind=kind)
        values = {"AP": coco.ap(), "AP50": coco.ap(threshold=0.5), "AP75": coco.ap(threshold=0.75)}
        scores |= {f"{name}{SUFFIX[kind]}": 100 * value for name, value in values.items()}
    voc = voc_scores(scenes, detections, rule="07", detectron2_rounding=True)
    means = np.nanmean(voc.ap, axis=0)
    places = {"AP50_voc": 0, "AP75_voc": voc.thresholds.index(0.75)}
    scores |= {"AP_voc": 100 * float(means.mean())} | {name: 100 * float(means[i]) for name, i in places.items()}
    return scores
