"""What the recipes of all transfer tasks have in common: encoder, model and optimizer.

Iterations, batch sizes and learning rates are those of the whole run, over all ranks.
"""

from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from moco.recipe_base import RecipeBase
from moco.recipe_error import RecipeError
from moco.recipe_specs import DataSpec, EncoderSpec, Positive, Spec
from moco.transfer.models.settings import Norm

Same = TypeVar("Same", bound="TransferRecipe")
RGB = tuple[float, float, float]


class TuneSpec(Spec):
    """SGD with a linear warm-up and steps, as Detectron2's WarmupMultiStepLR."""

    lr: Annotated[float, Field(gt=0)] = 0.02
    at: tuple[Positive, ...] = ()  # [iterations] at which lr is multiplied by `factor`
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup: Annotated[int, Field(ge=0)] = 1000  # [iterations]
    warmup_from: Annotated[float, Field(gt=0, le=1)] = 0.001  # lr of the first iteration, as a share of lr
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4  # of all but the weights and biases of norm layers
    batch_size: Positive = 16  # N, over all ranks
    iterations: Positive = 90_000

    @model_validator(mode="after")
    def _in_order(self) -> "TuneSpec":
        if list(self.at) != sorted(set(self.at)) or any(one >= self.iterations for one in self.at):
            raise ValueError(f"optim.at must rise and lie before the last iteration ({self.iterations}), got {self.at}")
        return self

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        lr = self.lr * self.factor ** sum(iteration >= one for one in self.at)
        if iteration < self.warmup:
            done = iteration / self.warmup
            lr *= self.warmup_from * (1 - done) + done
        return lr

    def with_iterations(self, iterations: int) -> "TuneSpec":
        """The same schedule with another number of iterations: lr changes after the same shares of the run."""
        share = iterations / self.iterations
        at = tuple(dict.fromkeys(max(1, round(one * share)) for one in self.at))
        warmup = min(self.warmup, max(1, round(self.warmup * share)) if self.warmup else 0)
        return TuneSpec.model_validate(
            self.model_dump()
            | {"iterations": iterations, "at": [one for one in at if one < iterations], "warmup": warmup}
        )


class TransferRecipe(RecipeBase):
    """A fine-tuning run is a function of its recipe, its initial weights and its images."""

    task: str = "detect"
    arch: str = ""  # the model on top of the encoder
    bn: Norm = "sync"  # of the encoder and of new layers: see moco.transfer.models.build
    init: str = "random"  # the initial weights; part of the recipe, so that a run cannot resume from others
    encoder: EncoderSpec = EncoderSpec()
    optim: TuneSpec = TuneSpec()
    mean: RGB = (0.485, 0.456, 0.406)  # of RGB in [0, 1], as the encoder was trained
    std: RGB = (0.229, 0.224, 0.225)
    data: str = ""  # the first characters of the SHA-256 of the training and of the test annotations
    precise_bn: Annotated[int, Field(ge=0)] = 200  # mini-batches for the statistics of BN before each evaluation
    threads: Positive | None = None  # of torch on a CPU; the last bits of sums depend on their number

    @property
    def encoder_size(self) -> int | None:
        """Side of the square images that the encoder is built for [pixels]; None: its default."""
        return None

    def adapt_to_weights(self: Same, init: str, encoder: EncoderSpec, data: DataSpec) -> Same:
        """The recipe of runs that start from the weights `init`, of this encoder, trained on images as in `data`.

        Raises:
            RecipeError: the encoder takes other than three channels.
        """
        if encoder.channels != 3:
            raise RecipeError(
                f"transfer is for RGB images, and {init} takes {encoder.channels} channels: moco eval judges it on "
                "images with bands"
            )
        return self.but(None, {"init": init, "encoder": encoder, "mean": data.mean, "std": data.std})
