"""The task `segment`: a class for each pixel."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from torch import nn

from moco.data.sources.images import DataError
from moco.encoders import Encoder
from moco.text import plural
from moco.transfer.detection.scene_images import SceneImages
from moco.transfer.models.fcn import FCN, build_segmenter
from moco.transfer.readers.formats import read_semantic
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.recipe import TransferRecipe
from moco.transfer.segmentation.loader import CropLoader
from moco.transfer.segmentation.pictures import draw_segmentations
from moco.transfer.segmentation.recipe import SegmentationRecipe
from moco.transfer.segmentation.recipes import segmentation_recipe
from moco.transfer.segmentation.score import count_pixels, predict, score_confusion, score_constant, score_segmenter
from moco.transfer.semantic import SemanticSet
from moco.transfer.task_interface import Baseline, Exportable, Labels, ModelResults, TransferData, TransferTask

HARDEST = 6  # images in the picture: those with the largest share of wrong pixels


@dataclass(frozen=True)
class Segmentation(TransferTask[SemanticSet]):
    """Predict one of the annotated classes for each pixel."""

    recipe = SegmentationRecipe
    schedule: str = "30k"
    arch: str = "fcn"

    def paper_recipe(self, arch: str, schedule: str) -> SegmentationRecipe:
        return segmentation_recipe(arch, schedule)

    def read(self, path: Path, options: ReadOptions, *, format: str | None) -> SemanticSet:
        return read_semantic(path, options, format=format)

    def images(self, annotated: SemanticSet) -> SceneImages:
        return SceneImages(annotated)

    def digest(self, annotated: SemanticSet) -> str:
        return annotated.summary.digest

    def choose(self, annotated: SemanticSet, chosen: Bool[np.ndarray, "n"]) -> SemanticSet:
        return replace(annotated, scenes=tuple(annotated.scenes[index] for index in np.flatnonzero(chosen)))

    def columns(self, data: Path, format: str | None) -> tuple[str, ...]:
        return ("mIoU", "pixel_accuracy")

    def fit(self, recipe: TransferRecipe, data: TransferData[SemanticSet]) -> TransferRecipe:
        """Read every label file (once). Raises DataError if no pixel has a class."""
        for part, use in ((data.train, "train"), (data.test, "test")):
            if not part.summary.pixels.any():
                raise DataError(
                    f"no pixel of {plural(len(part), 'image')} to {use} on has a class: all labels are 255 (ignored)"
                )
        return recipe

    def baseline(self, data: TransferData[SemanticSet]) -> Baseline:
        """Every pixel gets the most frequent class of the training images."""
        answer = int(data.train.summary.pixels.argmax())
        scores = score_constant(answer, data.test.summary.pixels, data.test.classes)
        return Baseline(f"all {data.train.classes[answer]}", scores)

    def build(self, encoder: Encoder, recipe: TransferRecipe, labels: Labels) -> FCN:
        assert isinstance(recipe, SegmentationRecipe)
        return build_segmenter(
            encoder.backbone, len(labels.classes), norm=recipe.bn, channels=recipe.channels, mean=recipe.mean,
            std=recipe.std,
        )  # fmt: skip

    def batches(self, annotated: SemanticSet, recipe: TransferRecipe, *, steps: range, workers: int) -> CropLoader:
        assert isinstance(recipe, SegmentationRecipe)
        return CropLoader(annotated, recipe, steps=steps, workers=workers)

    def score(self, model: nn.Module, test: SemanticSet, recipe: TransferRecipe, *, workers: int) -> dict[str, float]:
        assert isinstance(model, FCN)
        return score_segmenter(model, test, workers=workers)

    def evaluate(self, model: nn.Module, test: SemanticSet, recipe: TransferRecipe, *, workers: int) -> ModelResults:
        """The scores, the pixels by true and predicted class, and a picture of the hardest images."""
        assert isinstance(model, FCN)
        confusion, wrong = count_pixels(model, test, workers=workers)
        chosen = [int(index) for index in np.argsort(-wrong, kind="stable")[:HARDEST]]
        errors = [float(wrong[index]) for index in chosen]
        details = {"classes": list(test.classes), "pixels by true and predicted class": confusion.counts.tolist()}
        pictures = {"predictions.png": lambda: draw_segmentations(model, test, chosen, errors)}
        return ModelResults(score_confusion(confusion), details, pictures)

    def wrap_for_export(self, model: nn.Module, recipe: TransferRecipe) -> Exportable:
        return Exportable(
            model, "logits", None, "Images: RGB from 0 to 255, of any size, not normalized.",
            "The class of a pixel is that of the largest of its K logits.",
        )  # fmt: skip

    def predict(
        self, model: nn.Module, recipe: TransferRecipe, image: UInt8[np.ndarray, "H W 3"]
    ) -> UInt8[np.ndarray, "H W"]:
        """The class of each pixel of an RGB image."""
        assert isinstance(model, FCN)
        return predict(model, image)
