"""What a transfer task is: how its annotations are read, its model, its mini-batches and its scores.

A new task is a class like this one and an entry in `tasks.py`.
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
    """What a reader returns: a SceneSet, a SemanticSet, or images with one class each."""

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
    """What a model can find: it decides the sizes of the model's last layers."""

    classes: tuple[str, ...]
    keypoints: tuple[str, ...] = ()


class Batch(NamedTuple):
    """This rank's share of a mini-batch: what the model is called with, and which images these are."""

    inputs: tuple[Any, ...]
    ids: Int64[Tensor, "N"]

    def to(self, device: torch.device) -> tuple[Any, ...]:
        """The inputs, with all tensors on the device."""
        return tuple(_moved(one, device) for one in self.inputs)


@runtime_checkable
class Batches(Protocol):
    """The mini-batches of some steps, a function of (images, recipe, step) alone."""

    waited: float  # [s] that the consumer has waited for mini-batches so far

    def __iter__(self) -> Iterator[Batch]: ...


class Baseline(NamedTuple):
    """An answer that does not depend on the image, and its scores: what a score must exceed to mean anything."""

    name: str
    scores: Mapping[str, float]  # in percent


@dataclass(frozen=True)
class Evaluation:
    """How a model does on the test images.

    Attributes:
        scores: in percent.
        details: more of them, by class and by size, as JSON.
        pictures: PNG files, by name.
    """

    scores: dict[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)


class TransferTask(ABC, Generic[T]):
    """A task of tables 2 to 6: everything that fine-tuning and scoring need to know of it."""

    recipe: type[TransferRecipe]
    arch: str  # the model on the encoder, and the schedule, unless others are chosen
    schedule: str
    measured_images: int = 2  # of a rank's step from which time and memory of a mini-batch are estimated, in proportion

    @abstractmethod
    def paper_recipe(self, arch: str, schedule: str) -> TransferRecipe:
        """The paper's settings. Raises RecipeError for an unknown schedule."""

    @abstractmethod
    def read(self, path: Path, options: ReadOptions, *, format: str | None) -> T:
        """The annotated images at `path`. Raises DataError."""

    @abstractmethod
    def images(self, annotated: T) -> Images:
        """The images alone, which a run lists and compares when it resumes."""

    @abstractmethod
    def digest(self, annotated: T) -> str:
        """The beginning of a SHA-256 of all annotations."""

    @abstractmethod
    def choose(self, annotated: T, chosen: Bool[np.ndarray, "n"]) -> T:
        """Some of the images."""

    @abstractmethod
    def columns(self, data: Path, format: str | None) -> tuple[str, ...]:
        """The scores that the table shows, for the annotations at `data`."""

    @abstractmethod
    def build(self, encoder: Encoder, recipe: TransferRecipe, labels: Labels) -> nn.Module:
        """The model on `encoder`, with new layers of random weights. In training mode it returns its losses by name."""

    @abstractmethod
    def batches(self, annotated: T, recipe: TransferRecipe, *, steps: range, workers: int) -> Batches:
        """The mini-batches of `steps`, for training."""

    @abstractmethod
    def score(self, model: nn.Module, test: T, recipe: TransferRecipe, *, workers: int) -> dict[str, float]:
        """The scores on the test images, in percent."""

    @abstractmethod
    def predict(self, model: nn.Module, recipe: TransferRecipe, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """What the model finds in an RGB image of any size."""

    def evaluate(self, model: nn.Module, test: T, recipe: TransferRecipe, *, workers: int) -> Evaluation:
        """The scores, and what a person looks at to understand them."""
        return Evaluation(self.score(model, test, recipe, workers=workers))

    def fit(self, recipe: TransferRecipe, data: TransferData[T]) -> TransferRecipe:
        """The recipe for these images, where settings depend on them. Raises RecipeError: it does not fit them."""
        return recipe

    def select(self, recipe: TransferRecipe, data: TransferData[T]) -> TransferData[T]:
        """The data of one run: a recipe may train on a part of the images."""
        return data

    def baseline(self, data: TransferData[T]) -> Baseline | None:
        """The best answer that ignores the image, scored on the test images; None where there is none of use."""
        return None

    def with_body_surface(self, folder: Path) -> "TransferTask[T]":
        """The task with the files of a body's surface, which dense pose needs. Raises RecipeError for other tasks."""
        raise RecipeError("--body-surface is of the task densepose alone: leave it out")

    def strata(self, annotated: T) -> Int64[np.ndarray, "n"]:
        """The class of each image: one in five of each is held out. Zeros where an image has no single class."""
        return np.zeros(len(annotated), dtype=np.int64)

    def labels(self, annotated: T) -> Labels:
        return Labels(tuple(annotated.classes))

    def optimizer(self, model: nn.Module, recipe: TransferRecipe) -> torch.optim.Optimizer:
        """SGD; norm layers have no weight decay (Detectron2). The learning rate is set at every step."""
        groups = [one for one in parameter_groups(model, recipe.optim.weight_decay) if one["params"]]
        return SGD(groups, lr=0.0, momentum=recipe.optim.momentum, fused=True)

    def describe(self, recipe: TransferRecipe) -> str:
        """The model in a few words, for the plan."""
        return f"{recipe.task}, {recipe.encoder.name} {recipe.arch}, BN {recipe.bn}"


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: _moved(one, device) for name, one in value.items()}  # pyright: ignore
    if isinstance(value, list):
        return [_moved(one, device) for one in value]  # pyright: ignore
    return value
