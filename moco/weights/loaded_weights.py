"""Weights in memory: the tensors by name, and what is known about their network, images and training."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from moco.recipe import DataSpec, EncoderSpec, Spec
from moco.weights.errors import WeightsError

__all__ = ["Config", "LoadedWeights", "Weights", "WeightsError"]

Weights = str | Path


OF_TRAINING = {  # settings of the images that an encoder does not need
    "views", "shrink", "decode", "order", "key_views", "small_crops", "small_area", "small_size",
}  # fmt: skip


class Config(Spec):
    """config.json of an encoder folder: everything about an encoder except its weights."""

    format: Literal[1] = 1
    made_by: str = ""  # program and version
    encoder: EncoderSpec
    num_features: int  # D
    data: DataSpec  # the images it is for: size, eval_resize, mean, std
    recipe: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)  # steps, epochs, images, scores
    sha256: str = ""  # of model.safetensors; older folders lack it
    config_sha256: str = ""  # of the rest of config.json, see `hash_config`; older folders lack it
    note: str = Field(default="", exclude=True)  # what was read from where, and what was left out

    def to_json(self) -> str:
        """config.json, with its own checksum."""
        text = self.model_dump_json(indent=2, exclude={"data": OF_TRAINING, "config_sha256": True})
        return (
            self.model_copy(update={"config_sha256": hash_config(json.loads(text))}).model_dump_json(
                indent=2, exclude={"data": OF_TRAINING}
            )
            + "\n"
        )


def hash_config(config: dict[str, Any]) -> str:
    """The SHA-256 of the content of config.json without this checksum, as JSON with sorted names."""
    rest = {name: value for name, value in config.items() if name != "config_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class LoadedWeights:
    """Weights that were read. The names of the fields are those of the parts of a `Contrast`."""

    where: str  # the file or name, for messages
    backbone: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)
    spec: EncoderSpec | None = None  # if the file names the network
    guess: EncoderSpec | None = None  # inferred from names and shapes, which do not show dilation, for example
    data: DataSpec | None = None
    recipe: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    f_k: dict[str, Tensor] = field(default_factory=dict)  # backbone.* and head.*
    f_k_lags: bool = False  # Eqn. (2) was not applied after the last step: the authors' code applies it before a step
    predictor: dict[str, Tensor] = field(default_factory=dict)
    queue: dict[str, Tensor] = field(default_factory=dict)  # keys K x C; oldest, the row to be replaced next
    contents: dict[str, Any] = field(default_factory=dict)  # a description of the file for people
    content: dict[str, Any] = field(default_factory=dict)  # the content of the file, unchanged
    f_q: dict[str, Tensor] = field(default_factory=dict)  # the trained network, if `backbone` is its moving average
    everything: dict[str, Tensor] = field(default_factory=dict)  # all tensors of another tool's file, by its names
    prefix: str = ""  # chosen by the user

    def to_train_on(self) -> "LoadedWeights":
        """The same with the trained network as backbone, if the backbone is its moving average."""
        return replace(self, backbone=self.f_q, f_q={}) if self.f_q else self

    @property
    def summary(self) -> str:
        """`contents` in one line."""
        return "; ".join(f"{name}: {value}" for name, value in self.contents.items())
