"""Encoders: image -> feature -> embedding. Which names there are, and how an encoder is built.

The names: those of `moco.encoders.resnet.NETS` (any width, three stems) and `moco.encoders.vit.VITS` (any patch),
`torchvision/NAME`, `timm/NAME`, and `custom` for a module of one's own.
"""

import difflib
import json
from collections.abc import Collection
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moco.encoders.check_network import pooled
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

__all__ = ["Encoder", "at_rest", "build", "build_headless", "names"]

# The settings of an EncoderSpec that only some of our own networks have.
OWN: dict[str, Collection[str]] = {
    **dict.fromkeys(("stem", "width", "dilate_last", "zero_init"), NETS),
    **dict.fromkeys(("patch", "position", "freeze_patch"), VITS),
}


class Encoder(nn.Module):
    """f_q, and by copying f_k: a backbone and the head that pre-training throws away.

    The state dict has `backbone.*`, with the names that torchvision or timm give them, and `head.*`. Embeddings are not
    normalized here: `moco.method.Contrast` does that.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, spec: EncoderSpec, size: int | None) -> None:
        super().__init__()
        self.backbone = backbone.network
        self.head = head
        self.num_features = backbone.num_features  # D
        self.spec = spec
        self.size = size  # [pixels] of the images it was built for; None: its own
        self.cautions = backbone.cautions  # warnings for the user
        self._dense = backbone.dense

    def features(self, x: Float[Tensor, "N 3 H W"], dense: bool = False) -> Float[Tensor, "N ..."]:
        """What is transferred: the features N x D, or the feature map N x D' x h x w or patch tokens N x T x D'.

        D' is D but for a few networks that put layers behind their pooling (VGG, MobileNetV3).
        """
        return self._dense(self.backbone, x) if dense else pooled(self.backbone(x))

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C"]:
        """The embeddings."""
        return self.head(self.features(x))


def build(spec: EncoderSpec, *, size: int | None = None, model: nn.Module | None = None) -> Encoder:
    """The encoder that `spec` describes, with random weights from torch's global generator; never a download.

    Args:
        size: [pixels] of the images, square; None: the network's own (224 for most). A network that does not take this
            size, or cannot be trained, is refused here.
        model: the user's own backbone, when `spec.name` is "custom". It becomes part of the encoder.

    Raises:
        RecipeError: an unknown name (the nearest are named), or settings that the network does not have.
    """
    backbone = _backbone(spec, size, model, training=True)
    return Encoder(backbone, HEADS[spec.head](backbone.num_features, spec), spec=spec, size=size)


def build_headless(spec: EncoderSpec, *, size: int | None = None, model: nn.Module | None = None) -> Encoder:
    """As `build`, but without a head: the embedding is the feature itself."""
    return Encoder(_backbone(spec, size, model, training=False), nn.Identity(), spec=spec, size=size)


def names() -> list[str]:
    """Everything that `EncoderSpec.name` can be, but for `custom`."""
    return [*NETS, *VITS, *torchvision_names(), *timm_names()]


def check_name(name: str) -> None:
    """Raises RecipeError for a name that no encoder has; the nearest are named."""
    library, _, plain = name.partition("/")
    in_library = (library == "torchvision" and name in torchvision_names()) or (library == "timm" and is_timm(plain))
    if not in_library and name not in (*NETS, *VITS, "custom"):
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
        kinds = [*NETS, *VITS, "torchvision/NAME", "timm/NAME", "custom"]
        raise RecipeError(unknown("encoder", name, near or kinds))


def at_rest(name: str) -> dict[str, Any]:
    """The settings that do not apply to the network `name`, with the values that they must have."""
    rest = EncoderSpec()
    return {field: getattr(rest, field) for field, owners in OWN.items() if name not in owners}


def _backbone(spec: EncoderSpec, size: int | None, model: nn.Module | None, *, training: bool) -> Backbone:
    if (spec.name == "custom") != (model is not None):
        raise RecipeError(
            f"encoder.name must be 'custom' exactly if you give a module of your own: got '{spec.name}' and "
            f"{'no module' if model is None else 'a ' + type(model).__name__}. Give model=, or set another name"
        )
    if model is None:
        check_name(spec.name)
    library, _, name = spec.name.partition("/")
    _refuse_others_settings(spec)
    if spec.name in NETS:
        network = resnet(spec)
        return Backbone(network, network.num_features, ResNet.dense)  # pyright: ignore[reportArgumentType]
    if spec.name in VITS:
        network = vit(spec, size=size)
        return Backbone(network, network.num_features, ViT.dense)  # pyright: ignore[reportArgumentType]
    if model is not None:
        return own_backbone(model, size, training=training)
    make = torchvision_backbone if library == "torchvision" else timm_backbone
    return make(name, size, training=training)


def _refuse_others_settings(spec: EncoderSpec) -> None:
    """Raise RecipeError where a setting that applies only to other networks is set."""
    for field, rest in at_rest(spec.name).items():
        value = getattr(spec, field)
        if value != rest:
            plain = rest if isinstance(rest, str) else json.dumps(rest)
            raise RecipeError(
                f"encoder.{field} is for {', '.join(OWN[field])}; {spec.name} has none: expected {rest!r}, got "
                f"{value!r}. Set encoder.{field}={plain}, or take one of those"
            )
