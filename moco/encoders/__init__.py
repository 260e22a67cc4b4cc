"""Encoders: image -> feature -> embedding. Build one by its name.

Names: those of `moco.encoders.resnet.NETS` (any width, three stems) and `moco.encoders.vit.VITS` (any patch),
`torchvision/NAME`, `timm/NAME`, and `custom` for the user's own module.
"""

import difflib
import json
from collections.abc import Collection
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moco.encoders.check_network import pool_features
from moco.encoders.heads import HEADS
from moco.encoders.resnet import NETS, ResNet, resnet
from moco.encoders.torchvision_timm import (
    Backbone,
    is_timm,
    own_backbone,
    timm_backbone,
    timm_names,
    torchvision_backbone,
    torchvision_names,
)
from moco.encoders.vit import VITS, ViT, vit
from moco.recipe import EncoderSpec, RecipeError, unknown

__all__ = ["Encoder", "build", "build_headless", "fixed_settings", "names"]

# Setting of an EncoderSpec -> the networks that it applies to.
NETWORKS_WITH: dict[str, Collection[str]] = {
    **dict.fromkeys(("stem", "width", "dilate_last", "zero_init"), NETS),
    **dict.fromkeys(("patch", "position", "freeze_patch"), VITS),
}


class Encoder(nn.Module):
    """f_q, and as a copy f_k: a backbone, and a head that is discarded after pre-training.

    The state dict has `backbone.*`, named as in torchvision or timm, and `head.*`. The embeddings are not normalized
    here; `moco.method.Contrast` does that.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, spec: EncoderSpec, size: int | None) -> None:
        super().__init__()
        self.backbone = backbone.network
        self.head = head
        self.num_features = backbone.num_features  # D
        self.spec = spec
        self.size = size  # [pixels] image size it was built for; None: the network's own
        self.cautions = backbone.cautions  # warnings for the user
        self._dense = backbone.dense

    def features(self, x: Float[Tensor, "N c H W"], dense: bool = False) -> Float[Tensor, "N ..."]:
        """The features N x D that are transferred; `dense`: the feature map N x D' x h x w or patch tokens N x T x D'.

        D' equals D, except for a few networks that have layers after their pooling (VGG, MobileNetV3).
        """
        return self._dense(self.backbone, x) if dense else pool_features(self.backbone(x))

    def forward(self, x: Float[Tensor, "N c H W"]) -> Float[Tensor, "N C"]:
        """The embeddings."""
        return self.head(self.features(x))


def build(spec: EncoderSpec, *, size: int | None = None, model: nn.Module | None = None) -> Encoder:
    """The encoder that `spec` describes, with random weights from torch's global generator. Nothing is downloaded.

    Args:
        size: [pixels] of the images, square; None: the network's own (224 for most).
        model: the user's own backbone, if `spec.name` is "custom". It becomes part of the encoder.

    Raises:
        RecipeError: an unknown name (similar ones are named), settings that do not apply to the network, or a network
            that does not take images of this size or cannot be trained.
    """
    backbone = _backbone(spec, size, model, training=True)
    return Encoder(backbone, HEADS[spec.head](backbone.num_features, spec), spec=spec, size=size)


def build_headless(spec: EncoderSpec, *, size: int | None = None, model: nn.Module | None = None) -> Encoder:
    """As `build`, but without a head: the embedding is the feature."""
    return Encoder(_backbone(spec, size, model, training=False), nn.Identity(), spec=spec, size=size)


def names() -> list[str]:
    """All values of `EncoderSpec.name` except `custom`."""
    return [*NETS, *VITS, *torchvision_names(), *timm_names()]


def check_name(name: str) -> None:
    """Raise RecipeError for a name that no encoder has; similar names are listed."""
    library, _, plain = name.partition("/")
    in_library = (library == "torchvision" and name in torchvision_names()) or (library == "timm" and is_timm(plain))
    if not in_library and name not in (*NETS, *VITS, "custom"):
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
        kinds = [*NETS, *VITS, "torchvision/NAME", "timm/NAME", "custom"]
        raise RecipeError(unknown("encoder", name, near or kinds))


def fixed_settings(name: str) -> dict[str, Any]:
    """The settings that do not apply to the network `name`, with the defaults that they must keep."""
    defaults = EncoderSpec()
    return {field: getattr(defaults, field) for field, networks in NETWORKS_WITH.items() if name not in networks}


def _backbone(spec: EncoderSpec, size: int | None, model: nn.Module | None, *, training: bool) -> Backbone:
    if (spec.name == "custom") != (model is not None):
        raise RecipeError(
            f"encoder.name must be 'custom' if and only if you pass a module of your own (model=): got "
            f"'{spec.name}' and {'no module' if model is None else 'a ' + type(model).__name__}. Pass model=, or set "
            "another name"
        )
    if model is None:
        check_name(spec.name)
    library, _, name = spec.name.partition("/")
    _check_settings(spec)
    if spec.name in NETS:
        network = resnet(spec)
        return Backbone(network, network.num_features, ResNet.dense)  # pyright: ignore[reportArgumentType]
    if spec.name in VITS:
        network = vit(spec, size=size)
        return Backbone(network, network.num_features, ViT.dense)  # pyright: ignore[reportArgumentType]
    if model is not None:
        return own_backbone(model, size, training=training, channels=spec.channels)
    make = torchvision_backbone if library == "torchvision" else timm_backbone
    return make(name, size, training=training, channels=spec.channels)


def _check_settings(spec: EncoderSpec) -> None:
    """Raise RecipeError if a setting is set that does not apply to this network."""
    for field, default in fixed_settings(spec.name).items():
        value = getattr(spec, field)
        if value != default:
            text = default if isinstance(default, str) else json.dumps(default)
            raise RecipeError(
                f"encoder.{field} applies only to {', '.join(NETWORKS_WITH[field])}, not to {spec.name}: expected "
                f"{default!r}, got {value!r}. Set encoder.{field}={text}, or use one of these networks"
            )
