"""Infer the network and the head of a state dict from its names and shapes."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from moco.encoders.heads import HEADS
from moco.encoders.resnet import NETS, resnet
from moco.encoders.torchvision_timm import library_data, torchvision_names
from moco.encoders.vit import VITS, recognise_vit
from moco.recipe import DataSpec, EncoderSpec

Shapes = dict[str, tuple[int, ...]]
MOST = 20_000  # tensors of a network


def recognise_network(
    tensors: dict[str, Tensor], *, of_moco_v3: bool = False, small_stem: bool = False
) -> EncoderSpec | None:
    """The network with these names and shapes: a ResNet with ImageNet's stem, or a ViT of MoCo v3; None: another one.

    Names and shapes do not show dilation, nor the number of heads of a ViT: a ViT-S has 6 in timm and DINO, 12 in MoCo
    v3. A ViT counts as MoCo v3's if it has the fixed positions of MoCo v3.

    Args:
        of_moco_v3: the weights are known to be from MoCo v3, whatever the positions.
        small_stem: a 3 x 3 stem is known to have stride 1 and no pooling, which names and shapes do not show.
    """
    vit = recognise_vit(tensors)
    if vit is not None:
        return vit if of_moco_v3 or not _number_of_heads_is_open(vit) else None
    stem = tensors.get("conv1.weight")
    if stem is None or stem.ndim != 4 or stem.shape[-1] != (3 if small_stem else 7) or not len(stem):
        return None
    if len(tensors) > MOST:
        return None
    from torchvision import models

    for name, net in NETS.items():
        spec = EncoderSpec(name=name, width=stem.shape[0] / 64, stem="3x3" if small_stem else "7x7/2+pool")
        if (spec.width * net.group_width).is_integer() and _has_shapes_of(tensors, lambda spec=spec: resnet(spec)):
            return spec
    for name in [] if small_stem else torchvision_names():
        plain = name.partition("/")[2]
        if plain.startswith(("resnext", "wide_resnet")) and _has_shapes_of(
            tensors, lambda plain=plain: models.get_model(plain)
        ):
            return EncoderSpec(name=name)
    return None


def recognise_head(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The settings of an EncoderSpec for a head with these names and shapes; empty for a head that we do not have."""
    matrices = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    if not matrices:
        return {}
    features, hidden, dim = matrices[0].shape[1], matrices[0].shape[0], matrices[-1].shape[0]
    for head, bn in product(HEADS, (True, False)):
        wide = {} if head in ("linear", "mlp") else {"hidden": hidden, "head_bn": bn}
        settings = {"head": head, "dim": dim} | wide
        with torch.device("meta"):
            module = HEADS[head](features, EncoderSpec.model_validate(settings))
        if _shapes_by_name(module.state_dict()) == _shapes_by_name(tensors):
            return settings
    return {}


def infer_data(spec: EncoderSpec, tensors: dict[str, Tensor]) -> DataSpec:
    """The images that the network expects: as its library has them, or ImageNet's; the size from a ViT's positions."""
    if spec.name not in VITS or "pos_embed" not in tensors:
        return library_data(spec.name)
    side = math.isqrt(tensors["pos_embed"].shape[1] - 1) * (spec.patch or VITS[spec.name].patch)
    return DataSpec(size=side, eval_resize=round(side * 256 / 224))


def other_number_of_heads(tensors: dict[str, Tensor], guess: EncoderSpec | None, name: str) -> str | None:
    """Why a ViT's tensors must not be loaded into the ViT called `name`, although the shapes agree; None: they may be.

    Args:
        guess: the network of the tensors; None: unknown.
    """
    vit = recognise_vit(tensors)
    if vit is None or (guess is not None and guess.name == name):
        return None
    here = _number_of_heads(name)
    if guess is None and name == vit.name and _number_of_heads_is_open(vit):
        return (
            f"its ViT-S can have {here} heads, as MoCo v3's {name}, or 6, as timm's, DINO's and DeiT's: the shapes "
            f"agree, the features do not. If it has {here}, run moco import FILE --out DIR --architecture {name}, and "
            "give DIR"
        )
    there = None if guess is None else VITS[guess.name].heads
    if here is not None and there is not None and here != there:
        return (
            f"it is a {vit.name} of MoCo v3 with {there} heads, and {name} has {here}: the shapes agree, so it would "
            f"load and give wrong features. Use {vit.name}"
        )
    return None


def _number_of_heads_is_open(vit: EncoderSpec) -> bool:
    """Whether timm has a ViT with equal shapes and another number of heads, and the positions are not MoCo v3's."""
    return vit.name == "vit_small" and vit.position != "sincos"


def _number_of_heads(name: str) -> int | None:
    """The number of attention heads of our or timm's ViT called `name`; None: it is not a ViT."""
    if name in VITS:
        return VITS[name].heads
    library, _, plain = name.partition("/")
    if library != "timm":
        return None
    import timm

    with torch.device("meta"):
        blocks = getattr(timm.create_model(plain), "blocks", None)
    return getattr(getattr(blocks[0], "attn", None), "num_heads", None) if blocks else None


def _has_shapes_of(tensors: dict[str, Tensor], network: Callable[[], nn.Module]) -> bool:
    with torch.device("meta"):
        return _backbone_shapes(network().state_dict()) == _backbone_shapes(tensors)


def _backbone_shapes(tensors: dict[str, Tensor]) -> Shapes:
    """Names and shapes of a ResNet without its classifier."""
    return {
        key: shape
        for key, shape in _shapes_by_name(tensors).items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }


def _shapes_by_name(tensors: dict[str, Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}
