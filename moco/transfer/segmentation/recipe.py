"""The recipe for fine-tuning a segmenter: the network on top of the encoder, and its training crops."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moco.recipe_specs import Positive, Probability, Side, Spec
from moco.transfer.recipe import TransferRecipe

Ratio = Annotated[float, Field(gt=0, le=16)]


class CropSpec(Spec):
    """How training crops are made. Evaluation uses images at their own size."""

    smallest: Ratio = 0.5  # images are resized by a random ratio between these
    largest: Ratio = 2.0
    side: Side = 513  # [pixels] of a square crop; smaller images are padded
    flip: Probability = 0.5

    @model_validator(mode="after")
    def _in_order(self) -> "CropSpec":
        if self.smallest > self.largest:
            raise ValueError(f"crops.smallest must be at most crops.largest ({self.largest}), got {self.smallest}")
        return self


class SegmentationRecipe(TransferRecipe):
    """Fine-tuning of a segmenter."""

    task: Literal["segment"] = "segment"  # pyright: ignore[reportIncompatibleVariableOverride]
    arch: Literal["fcn"] = "fcn"  # pyright: ignore[reportIncompatibleVariableOverride]
    channels: Positive = 256  # of the two new 3x3 convolutions
    crops: CropSpec = CropSpec()
