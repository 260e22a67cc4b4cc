"""Feature pyramid networks (arXiv:1612.03144)."""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from moco.transfer.models.backbones import ResNetBody, TimmBody


class FPN(nn.Module):
    """torchvision's pyramid on the four feature maps of `body`. A fifth map has every second position of the fourth.

    Args:
        norm: the pyramid has BN (Sec. 4.2: "the newly initialized layers (e.g., FPN)"); otherwise its convolutions
            have biases.
    """

    def __init__(self, body: ResNetBody | TimmBody, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.body, self.channels = body, channels
        self.strides = (*body.strides, body.strides[-1] * 2)
        layer = nn.BatchNorm2d if norm else None
        self.fpn = FeaturePyramidNetwork(body.channels, channels, LastLevelMaxPool(), norm_layer=layer)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N C _ _"]]:
        """The five feature maps, the largest first."""
        return list(self.fpn({str(index): x for index, x in enumerate(self.body(x))}).values())
