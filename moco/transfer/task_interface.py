"""The interface of a transfer task: it reads annotations, builds the model, makes mini-batches and computes scores.

A new task is a subclass of TransferTask and an entry in `task_registry.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor, nn

from moco.data.sources.images import Images
from moco.encoders import Encoder
from moco.recipe_error import RecipeError
from moco.train.optim import SGD
from moco.transfer.models.norms import parameter_groups
from moco.transfer.readers.shared import ReadOptions
from moco.transfer.recipe import TransferRecipe


@runtime_checkable
class AnnotatedImages(Protocol):
    """What a reader returns: a SceneSet, a SemanticSet, or Images with one class each."""

    @property
    def classes(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...


T = TypeVar("T", bound=AnnotatedImages)


@dataclass(frozen=True)
class TransferData(Generic[T]):
    """Annotated images to train on and to test on, with the same classes."""

    train: T
    test: T


@dataclass(frozen=True)
class Labels:
    """What a model predicts: classes and keypoints, by name. Their numbers are the sizes of its last layers."""

    classes: tuple[str, ...]
    keypoints: tuple[str, ...] = ()


class AnnotatedBatch(NamedTuple):
    """This rank's share of a mini-batch: the arguments of the model's forward pass, and the numbers of the images."""

    inputs: tuple[Any, ...]
    ids: Int64[Tensor, "N"]

    def to(self, device: torch.device) -> tuple[Any, ...]:
        """The inputs, with all tensors on the device."""
        return tuple(_move(value, device) for value in self.inputs)


@runtime_checkable
class Batches(Protocol):
    """The mini-batches of a range of steps. Each depends on (images, recipe, step) alone."""

    waited: float  # [s] that the consumer has waited for mini-batches so far

    def __iter__(self) -> Iterator[AnnotatedBatch]: ...


class Baseline(NamedTuple):
    """The scores of an answer that ignores the image. A model is of use only if its scores are higher."""

    name: str
    scores: Mapping[str, float]  # in percent


@dataclass(frozen=True)
class ModelResults:
    """Results of a model on the test images.

    Attributes:
        scores: in percent.
        details: more scores, by class and by size; can be written as JSON.
        pictures: functions that return PNG files, by file name.
    """

    scores: dict[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Exportable:
    """The part of a fine-tuned model that is exported to ONNX: bytes of RGB images N x 3 x H x W to one output.

    Attributes:
        output: its name.
        size: [pixels] images are square with this side; None: of any size.
        preparation: a sentence that says what the images are.
        meaning: a sentence that says what the output is.
    """

    network: nn.Module
    output: str
    size: int | None
    preparation: str
    meaning: str


class TransferTask(ABC, Generic[T]):
    """One task of Tables 2 to 6: everything in which fine-tuning and scoring differ between tasks."""

    recipe: type[TransferRecipe]
    arch: str  # default: the model on top of the encoder
    schedule: str  # default
    measured_images: int = 2  # per rank, in the steps that are measured to estimate time and memory

    @abstractmethod
    def paper_recipe(self, arch: str, schedule: str) -> TransferRecipe:
        """The paper's settings. Raises RecipeError for an unknown schedule."""

    @abstractmethod
    def read(self, path: Path, options: ReadOptions, *, format: str | None) -> T:
        """The annotated images at `path`. Raises DataError."""

    @abstractmethod
    def images(self, annotated: T) -> Images:
        """The images without annotations. A run lists them, and compares them when it resumes."""

    @abstractmethod
    def digest(self, annotated: T) -> str:
        """The first 16 characters of a SHA-256 of all annotations."""

    @abstractmethod
    def choose(self, annotated: T, chosen: Bool[np.ndarray, "n"]) -> T:
        """The annotated images for which `chosen` is true."""

    @abstractmethod
    def columns(self, data: Path, format: str | None) -> tuple[str, ...]:
        """The names of the scores in the table; they may depend on the format of the annotations at `data`."""

    @abstractmethod
    def build(self, encoder: Encoder, recipe: TransferRecipe, labels: Labels) -> nn.Module:
        """The model on top of `encoder`; new layers have random weights. In training mode it returns losses by name."""

    @abstractmethod
    def batches(self, annotated: T, recipe: TransferRecipe, *, steps: range, workers: int) -> Batches:
        """The training mini-batches of `steps`."""

    @abstractmethod
    def score(self, model: nn.Module, test: T, recipe: TransferRecipe, *, workers: int) -> dict[str, float]:
        """The scores on the test images, in percent."""

    @abstractmethod
    def predict(self, model: nn.Module, recipe: TransferRecipe, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """The prediction for an RGB image of any size."""

    def wrap_for_export(self, model: nn.Module, recipe: TransferRecipe) -> Exportable | None:
        """What is exported to ONNX; None if models of this task cannot be."""
        return None

    def evaluate(self, model: nn.Module, test: T, recipe: TransferRecipe, *, workers: int) -> ModelResults:
        """The scores, with details and pictures that explain them."""
        return ModelResults(self.score(model, test, recipe, workers=workers))

    def fit(self, recipe: TransferRecipe, data: TransferData[T]) -> TransferRecipe:
        """The recipe with the settings that depend on the data. Raises RecipeError if recipe and data do not fit."""
        return recipe

    def select(self, recipe: TransferRecipe, data: TransferData[T]) -> TransferData[T]:
        """The data of one run. A recipe may train on a part of the images."""
        return data

    def baseline(self, data: TransferData[T]) -> Baseline | None:
        """The scores of the best answer that ignores the image; None if the task has no such baseline."""
        return None

    def with_body_surface(self, folder: Path) -> "TransferTask[T]":
        """The task with the folder of body surface files, which only densepose needs. Raises RecipeError otherwise."""
        raise RecipeError("only the task densepose takes --body-surface: remove this option")

    def strata(self, annotated: T) -> Int64[np.ndarray, "n"]:
        """The class of each image: one in five of each class is held out. Zeros if images have no single class."""
        return np.zeros(len(annotated), dtype=np.int64)

    def labels(self, annotated: T) -> Labels:
        return Labels(tuple(annotated.classes))

    def optimizer(self, model: nn.Module, recipe: TransferRecipe) -> torch.optim.Optimizer:
        """SGD without weight decay for norm layers, as in Detectron2. The learning rate is set at every step."""
        groups = [one for one in parameter_groups(model, recipe.optim.weight_decay) if one["params"]]
        return SGD(groups, lr=0.0, momentum=recipe.optim.momentum, fused=True)

    def describe(self, recipe: TransferRecipe) -> str:
        """A short description of the model, for the plan."""
        return f"{recipe.task}, {recipe.encoder.name} {recipe.arch}, BN {recipe.bn}"


def _move(value: Any, device: torch.device) -> Any:
    """All tensors in `value`, also in dicts and lists, on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: _move(one, device) for name, one in value.items()}  # pyright: ignore
    if isinstance(value, list):
        return [_move(one, device) for one in value]  # pyright: ignore
    return value
