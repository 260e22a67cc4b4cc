"""Detection tasks: `detect`, `instance` and `keypoints`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import nn

from moco.encoders import Encoder
from moco.recipe_error import RecipeError
from moco.transfer.detection.loader import SceneLoader
from moco.transfer.detection.pictures import details_of, draw_detections, draw_precision_recall
from moco.transfer.detection.recipe import DetectionRecipe
from moco.transfer.detection.recipes import detection_recipe
from moco.transfer.detection.scene_images import SceneImages, hash_scenes
from moco.transfer.detection.score import TASK_METRICS, detect_in_scenes, score_detections
from moco.transfer.metrics.coco import coco_scores
from moco.transfer.models.backbones import stem_stride
from moco.transfer.models.build import build_detector
from moco.transfer.models.detector import Detector
from moco.transfer.models.resize import resize
from moco.transfer.models.scale_detections import for_metrics
from moco.transfer.models.settings import Task
from moco.transfer.predicted_objects import Detections
from moco.transfer.readers.formats import OBJECT_FORMATS, read_scenes, recognise
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.recipe import TransferRecipe
from moco.transfer.scenes import SceneSet
from moco.transfer.task_interface import Labels, ModelResults, TransferData, TransferTask

KIND_NAMES = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
SUFFIX = {"instance": "_mask", "keypoints": "_keypoints"}


@dataclass(frozen=True)
class Detection(TransferTask[SceneSet]):
    """Detect objects of the annotated classes, with their masks or keypoints."""

    name: Task
    recipe = DetectionRecipe
    schedule: str = "24k"
    arch: str = "fpn"
    format: str | None = None  # of the annotations, unless --format names another; None: recognised

    def paper_recipe(self, arch: str, schedule: str) -> DetectionRecipe:
        return detection_recipe(self.name, arch, schedule)

    def read(self, path: Path, options: ReadOptions, *, format: str | None) -> SceneSet:
        return read_scenes(path, options, format=format or self.format)

    def images(self, annotated: SceneSet) -> SceneImages:
        return SceneImages(annotated)

    def digest(self, annotated: SceneSet) -> str:
        return hash_scenes(annotated)

    def choose(self, annotated: SceneSet, chosen: Bool[np.ndarray, "n"]) -> SceneSet:
        return replace(annotated, scenes=tuple(annotated.scenes[index] for index in np.flatnonzero(chosen)))

    def columns(self, data: Path, format: str | None) -> tuple[str, ...]:
        """VOC's 11-point AP of boxes on VOC, else COCO's AP of boxes, masks or keypoints."""
        if self.name == "detect" and (format or recognise(data, OBJECT_FORMATS)) == "voc":
            return ("AP50_voc", "AP_voc", "AP75_voc")
        return tuple(f"{name}{SUFFIX.get(self.name, '')}" for name in ("AP", "AP50", "AP75"))

    def fit(self, recipe: TransferRecipe, data: TransferData[SceneSet]) -> TransferRecipe:
        if self.name == "keypoints" and not data.train.keypoint_names:
            raise RecipeError(
                "the annotations have no keypoints: use moco transfer detect, or annotations that have them"
            )
        return recipe

    def labels(self, annotated: SceneSet) -> Labels:
        return Labels(annotated.classes, annotated.keypoint_names)

    def build(self, encoder: Encoder, recipe: TransferRecipe, labels: Labels) -> Detector:
        """If the recipe gives no anchor sizes, an encoder with a stem for small images has smaller anchors."""
        assert isinstance(recipe, DetectionRecipe)
        settings = recipe.settings(len(labels.classes), len(labels.keypoints))
        if recipe.detector.anchor_sizes is None:
            settings = settings.with_anchors_times(stem_stride(encoder.backbone) / 4)
        return build_detector(
            encoder.backbone, recipe.task, recipe.arch, len(labels.classes), norm=recipe.bn, settings=settings,
            mean=recipe.mean, std=recipe.std,
        )  # fmt: skip

    def batches(self, annotated: SceneSet, recipe: TransferRecipe, *, steps: range, workers: int) -> SceneLoader:
        assert isinstance(recipe, DetectionRecipe)
        return SceneLoader(annotated, recipe, steps=steps, workers=workers)

    def score(self, model: nn.Module, test: SceneSet, recipe: TransferRecipe, *, workers: int) -> dict[str, float]:
        return self.score_found(test, detect_in(model, test, recipe, workers=workers))

    def score_found(self, test: SceneSet, found: Sequence[Detections]) -> dict[str, float]:
        """The scores of detections in the test images, in percent."""
        return score_detections(test, found, self.name)

    def evaluate(self, model: nn.Module, test: SceneSet, recipe: TransferRecipe, *, workers: int) -> ModelResults:
        """The scores, AP by class and size, and pictures. Curves are drawn for tasks that use COCO's AP."""
        found = detect_in(model, test, recipe, workers=workers)
        by_kind = {KIND_NAMES[kind]: coco_scores(test, found, kind=kind) for kind in TASK_METRICS.get(self.name, ())}
        pictures = {"predictions.png": lambda: draw_detections(test, found)}
        if by_kind:
            pictures["precision_recall.png"] = lambda: draw_precision_recall(by_kind)
        return ModelResults(self.score_found(test, found), details_of(by_kind), pictures)

    def predict(self, model: nn.Module, recipe: TransferRecipe, image: UInt8[np.ndarray, "H W 3"]) -> Detections:
        """The objects in an RGB image, in pixels of that image, by decreasing score."""
        assert isinstance(recipe, DetectionRecipe)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
        resized, _ = resize(pixels, None, shorter=recipe.sizes.eval_shorter, longest=recipe.sizes.longest)
        place = next(model.parameters()).device
        return for_metrics(model([resized.to(place)], sizes=[image.shape[:2]])[0])


def detect_in(model: nn.Module, test: SceneSet, recipe: TransferRecipe, *, workers: int) -> list[Detections]:
    """The detections of a model in the test images."""
    assert isinstance(model, Detector)
    assert isinstance(recipe, DetectionRecipe)
    return detect_in_scenes(model, test.scenes, recipe, workers=workers)
