"""The task `classify`: a class for each image."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import nn

from moco.data.augment.cpu import eval_crop
from moco.data.sources.images import DataError, Images, Subset
from moco.data.sources.labels import is_split_name
from moco.data.sources.split import draw_share
from moco.encoders import Encoder
from moco.encoders.check_network import probe
from moco.recipe_error import RecipeError
from moco.text import escape, first_few
from moco.train.optim import SGD, AdamW
from moco.transfer.classification.loader import ImageLoader
from moco.transfer.classification.model import Classifier
from moco.transfer.classification.pictures import draw_confusions, draw_predictions
from moco.transfer.classification.recipe import ClassificationRecipe
from moco.transfer.classification.recipes import classification_recipe
from moco.transfer.classification.score import accuracies, details_by_class, frequency_scores, logits_of
from moco.transfer.models.norms import freeze, synchronize
from moco.transfer.readers.formats import CLASS_FORMATS, read_classes, recognise
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.recipe import TransferRecipe
from moco.transfer.task_interface import Baseline, Exportable, Labels, ModelResults, TransferData, TransferTask

PER_CLASS_FIRST = ("flowers", "pets")  # data sets whose usual score is the mean over classes


@dataclass(frozen=True)
class Classification(TransferTask[Images]):
    """Fine-tuning of all layers with a linear classifier on the encoder's features."""

    recipe = ClassificationRecipe
    arch: str = "linear"
    schedule: str = "imagenet"
    measured_images: int = 16

    def paper_recipe(self, arch: str, schedule: str) -> ClassificationRecipe:
        return classification_recipe(arch, schedule)

    def read(self, path: Path, options: ReadOptions, *, format: str | None) -> Images:
        images = read_classes(path, options, format=format)
        if all(map(is_split_name, images.classes)):
            raise DataError(
                f"the folders in {escape(str(path))} are {first_few(list(images.classes))}, which are names of splits, "
                "not of classes: name the splits with --split and --test-split"
            )
        if len(images.classes) < 2:
            raise DataError(f"all images in {escape(str(path))} are of one class, {escape(images.classes[0])}")
        return images

    def images(self, annotated: Images) -> Images:
        return annotated

    def digest(self, annotated: Images) -> str:
        digest = hashlib.sha256(repr((tuple(annotated.classes), tuple(annotated.names))).encode())
        digest.update(self.strata(annotated).tobytes())
        return digest.hexdigest()[:16]

    def choose(self, annotated: Images, chosen: Bool[np.ndarray, "n"]) -> Images:
        return Subset(annotated, np.flatnonzero(chosen))

    def strata(self, annotated: Images) -> Int64[np.ndarray, "n"]:
        assert annotated.labels is not None  # every reader of classes gives labels
        return annotated.labels

    def columns(self, data: Path, format: str | None) -> tuple[str, ...]:
        of_classes = (format or recognise(data, CLASS_FORMATS)) in PER_CLASS_FIRST
        return ("per_class", "top1", "top5") if of_classes else ("top1", "top5", "per_class")

    def baseline(self, data: TransferData[Images]) -> Baseline:
        scores = frequency_scores(self.strata(data.train), self.strata(data.test), len(data.train.classes))
        return Baseline("the most frequent class", scores)

    def select(self, recipe: TransferRecipe, data: TransferData[Images]) -> TransferData[Images]:
        assert isinstance(recipe, ClassificationRecipe)
        if recipe.labels == 1:
            return data
        few = self.choose(data.train, draw_share(self.strata(data.train), recipe.labels, seed=recipe.seed))
        return TransferData(few, data.test)

    def fit(self, recipe: TransferRecipe, data: TransferData[Images]) -> ClassificationRecipe:
        assert isinstance(recipe, ClassificationRecipe)
        return recipe.but(None, {"optim": recipe.optim.for_images(len(data.train))})

    def build(self, encoder: Encoder, recipe: TransferRecipe, labels: Labels) -> Classifier:
        """Raises RecipeError: the encoder does not take images of the recipe's size, or --bn does not fit its BN."""
        assert isinstance(recipe, ClassificationRecipe)
        size = recipe.data_spec.size
        try:
            probe(encoder.backbone, recipe.encoder.name, size, own_size=encoder.size, training=False)
        except RecipeError as error:
            raise RecipeError(str(error).replace("data.size", "images.size")) from error
        encoder.requires_grad_(True)
        if recipe.bn == "frozen":
            encoder.backbone = freeze(encoder.backbone)
        elif recipe.bn == "sync":
            synchronize(encoder)
        return Classifier(encoder, len(labels.classes), recipe.augment, mean=recipe.mean, std=recipe.std)

    def batches(self, annotated: Images, recipe: TransferRecipe, *, steps: range, workers: int) -> ImageLoader:
        assert isinstance(recipe, ClassificationRecipe)
        return ImageLoader(annotated, recipe, steps=steps, workers=workers)

    def optimizer(self, model: nn.Module, recipe: TransferRecipe) -> torch.optim.Optimizer:
        """SGD with weight decay of all parameters; or AdamW without that of biases, norms and tokens, as in timm."""
        assert isinstance(recipe, ClassificationRecipe)
        optim = recipe.optim
        if optim.optimizer == "sgd":
            return SGD(model.parameters(), lr=0.0, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=True)
        names = {"cls_token", "pos_embed"}
        decayed = [x for name, x in model.named_parameters() if x.ndim > 1 and name.rpartition(".")[2] not in names]
        ids = {id(x) for x in decayed}
        others = [x for x in model.parameters() if id(x) not in ids]
        groups = [{"params": decayed, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return AdamW(groups, lr=0.0, fused=True)

    def score(self, model: nn.Module, test: Images, recipe: TransferRecipe, *, workers: int) -> dict[str, float]:
        return self.evaluate(model, test, recipe, workers=workers).scores

    def evaluate(self, model: nn.Module, test: Images, recipe: TransferRecipe, *, workers: int) -> ModelResults:
        """The scores, those of each class, and pictures of the hardest images and of confused classes."""
        assert isinstance(model, Classifier)
        assert isinstance(recipe, ClassificationRecipe)
        logits, labels = logits_of(model, test, recipe, workers=workers), torch.from_numpy(self.strata(test))
        pictures = {
            "predictions.png": lambda: draw_predictions(test, logits, labels),
            "confusions.png": lambda: draw_confusions(logits, labels, test.classes),
        }
        details = {"classes": details_by_class(logits, labels, test.classes)}
        return ModelResults(accuracies(logits, labels), details, pictures)

    def wrap_for_export(self, model: nn.Module, recipe: TransferRecipe) -> Exportable:
        assert isinstance(recipe, ClassificationRecipe)
        data = recipe.data_spec
        return Exportable(
            nn.Sequential(model, nn.Softmax(dim=1)), "probabilities", data.size,
            f"Images: resize the shorter side to {data.eval_resize} pixels, crop the central {data.size} x {data.size}"
            "; RGB from 0 to 255, not normalized.",
            "Each row has the probability of each of the K classes.",
        )  # fmt: skip

    def predict(
        self, model: nn.Module, recipe: TransferRecipe, image: UInt8[np.ndarray, "H W 3"]
    ) -> Float32[np.ndarray, "K"]:
        """The probability of each class for an RGB image, of which the central crop is used."""
        assert isinstance(recipe, ClassificationRecipe)
        crop = torch.from_numpy(eval_crop(image, recipe.data_spec))[None]
        return model(crop.to(next(model.parameters()).device)).float().softmax(dim=1)[0].cpu().numpy()
