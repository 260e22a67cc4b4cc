"""An encoder with a linear classifier on its features."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from moco.data.augment.normalize import normalize
from moco.encoders import Encoder
from moco.recipe import RecipeError
from moco.transfer.classification.recipe import AugmentSpec
from moco.transfer.recipe import RGB


class Classifier(nn.Module):
    """Returns class logits of crops; in training mode, the loss of crops and labels.

    Random augmentations use torch's global generator, which is seeded at each step.

    Args:
        encoder: becomes part of the classifier.
        mean, std: of RGB in [0, 1], as the encoder was trained.
    """

    def __init__(self, encoder: Encoder, num_classes: int, augment: AugmentSpec, *, mean: RGB, std: RGB) -> None:
        super().__init__()
        self.encoder, self.augment, self.mean, self.std = encoder, augment, mean, std
        self.head = nn.Linear(encoder.num_features, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.mix = _mixing(augment, num_classes)
        if augment.drop_path:
            add_drop_path(encoder, augment.drop_path)

    def forward(self, crops: UInt8[Tensor, "N 3 S S"], labels: Int64[Tensor, "N"] | None = None) -> Any:
        """The logits N x K, or in training mode {"loss_class": mean cross-entropy}."""
        x = normalize(crops, mean=self.mean, std=self.std)
        if not self.training:
            return self.logits(x)
        assert labels is not None
        target: Tensor = labels
        if self.augment.erase:
            x = erase_randomly(x, self.augment.erase)
        if self.mix is not None:
            x, target = self.mix(x, labels)
        return {"loss_class": F.cross_entropy(self.logits(x), target, label_smoothing=self.augment.smoothing)}

    def logits(self, x: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N K"]:
        return self.head(self.encoder.features(x))


def _mixing(augment: AugmentSpec, num_classes: int) -> Any:
    """torchvision's MixUp or CutMix of a mini-batch; if both are set, one of them at random. None: neither is set."""
    if not (augment.mixup or augment.cutmix):
        return None
    from torchvision.transforms import v2

    kinds = {v2.MixUp: augment.mixup, v2.CutMix: augment.cutmix}
    chosen = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds.items() if alpha]
    return chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)


def erase_randomly(x: Float[Tensor, "N 3 S S"], p: float) -> Float[Tensor, "N 3 S S"]:
    """With probability p, replace a rectangle of 2 to 33 % of an image by normal noise."""
    from torchvision.transforms import v2

    erase = v2.RandomErasing(p=p, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), value="random")  # pyright: ignore
    return torch.stack([erase(image) for image in x])


def add_drop_path(encoder: nn.Module, rate: float) -> None:
    """Stochastic depth of the residual branches of a ViT's blocks: rate 0 in the first, `rate` in the last (DeiT).

    Raises:
        RecipeError: the encoder has no blocks with attention and MLP.
    """
    from torchvision.ops import stochastic_depth

    blocks = [block for block in encoder.modules() if {"attn", "mlp"} <= dict(block.named_children()).keys()]
    if not blocks:
        raise RecipeError(
            "augment.drop_path works only for a ViT, whose blocks have attention and MLP: set augment.drop_path=0, or "
            "take another schedule, such as --schedule imagenet"
        )

    def drop(p: float, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return stochastic_depth(output, p, "row", training=module.training)

    for block, p in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        for branch in (block.get_submodule("attn"), block.get_submodule("mlp")):
            branch.register_forward_hook(partial(drop, p))
