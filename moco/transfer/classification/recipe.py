"""The recipe for fine-tuning a classifier: images, augmentations, optimizer and schedule."""

from typing import Annotated, Literal

from pydantic import Field

from moco.recipe import RecipeError
from moco.recipe_specs import DataSpec, EncoderSpec, Epochs, Jitter, Positive, Probability, Side, Spec, View
from moco.schedule import Cosine
from moco.transfer.recipe import TransferRecipe, TuneSpec

Share = Annotated[float, Field(gt=0, lt=1)]


class ImageSpec(Spec):
    """The crops that the encoder gets: random ones in training, the central one in evaluation."""

    size: Side | None = None  # [pixels] square; None: that of the weights
    eval_resize: Side | None = None  # [pixels] of the shorter side before the central crop; None: that of the weights
    crop_area: tuple[float, float] = (0.08, 1.0)  # of the image's area
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    flip: Probability = 0.5


class AugmentSpec(Spec):
    """Augmentations besides crops. 0 turns each of them off."""

    rand_augment: Annotated[int, Field(ge=0, le=10)] = 0  # magnitude of RandAugment
    smoothing: Probability = 0.0  # label smoothing
    mixup: Annotated[float, Field(ge=0)] = 0.0  # alpha of Mixup: two images are blended
    cutmix: Annotated[float, Field(ge=0)] = 0.0  # alpha of CutMix: a part of an image is replaced by one of another
    erase: Probability = 0.0  # that a random rectangle is replaced by noise
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # ViTs only: stochastic depth, rising linearly to this rate


class ClassTuneSpec(TuneSpec):
    """SGD or AdamW over epochs; the learning rate falls in steps or along a cosine.

    `for_images` computes the number of iterations from the epochs. Milestones and warm-up are shares of the run, so a
    longer or shorter run has the same schedule.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    decay: Literal["steps", "cosine"] = "steps"
    milestones: tuple[Share, ...] = (0.7, 0.9)  # shares of the run after which lr is multiplied by `factor`
    lr_end: Annotated[float, Field(ge=0)] = 0.0  # cosine only: lr at the end
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the run
    warmup: Annotated[int, Field(ge=0)] = 0  # [iterations] 0: computed from `warmup_share`
    lr: Annotated[float, Field(gt=0)] = 0.03
    batch_size: Positive = 256
    epochs: Epochs | None = 100  # None: `iterations` sets the length
    iterations: Positive = 1

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0. A cosine begins with the run, below its warm-up."""
        if self.decay == "steps" or iteration < self.warmup:
            return super().lr_at(iteration)
        return Cosine(self.lr, self.lr_end)(iteration, self.iterations)

    def for_images(self, images: int) -> "ClassTuneSpec":
        """A copy with the iterations and warm-up for `images` images. Raises RecipeError if both lengths are set."""
        iterations = self.iterations
        if self.epochs is not None:
            if iterations != 1:
                raise RecipeError(
                    f"optim.epochs ({self.epochs}) and optim.iterations ({iterations}) both set the length: give "
                    "--schedule ITERATIONS, or optim.epochs=null with optim.iterations"
                )
            iterations = max(1, round(self.epochs * (images // self.batch_size)))
        at = self.at or tuple(sorted({max(1, round(share * iterations)) for share in self.milestones}))
        warmup = self.warmup or round(self.warmup_share * iterations)
        changes = {"iterations": iterations, "warmup": warmup, "at": tuple(one for one in at if one < iterations)}
        return self.model_copy(update=changes if self.decay == "steps" else changes | {"at": ()})


class ClassificationRecipe(TransferRecipe):
    """Fine-tuning of all layers of an encoder with a linear classifier on its features."""

    task: str = "classify"
    arch: str = "linear"
    optim: ClassTuneSpec = ClassTuneSpec()  # pyright: ignore[reportIncompatibleVariableOverride]
    labels: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of each class's training images, drawn by the seed
    images: ImageSpec = ImageSpec()
    augment: AugmentSpec = AugmentSpec()
    precise_bn: Annotated[int, Field(ge=0)] = 0  # 0: scores use the running averages of BN, as in the paper

    @property
    def data_spec(self) -> DataSpec:
        """The same settings as a DataSpec, for the code of views and central crops."""
        images, defaults = self.images, DataSpec()
        view = View(
            crop_area=images.crop_area, crop_ratio=images.crop_ratio, flip=images.flip, jitter=Jitter(p=0.0), grey=0.0
        )
        return DataSpec(
            size=images.size or defaults.size, eval_resize=images.eval_resize or defaults.eval_resize, views=(view,),
            mean=self.mean, std=self.std,
        )  # fmt: skip

    @property
    def encoder_size(self) -> int | None:
        return self.images.size

    def adapt_to_weights(self, init: str, encoder: EncoderSpec, data: DataSpec) -> "ClassificationRecipe":
        """As in the base class, and with the image size of the weights, unless another is set."""
        size = self.images.size or data.size
        resize = self.images.eval_resize or round(size * data.eval_resize / data.size)
        sizes = {"images.size": size, "images.eval_resize": resize}
        return super().adapt_to_weights(init, encoder, data).but(None, sizes)
