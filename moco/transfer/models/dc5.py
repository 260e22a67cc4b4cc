"""R50-dilated-C5 (appendix A.1): one feature map of stride 16 and 512 channels."""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from moco.encoders.resnet import ResNet
from moco.transfer.models.backbones import ResNetBody, dilate


class DilatedC5(nn.Module):
    """The encoder with its last stage dilated, and "a 3x3 convolution (with BN) that reduces dimension to 512".

    Detectron2 has no such convolution. The paper mentions no ReLU after it, so there is none. Its weights are
    initialized like those of the FPN.
    """

    def __init__(self, network: ResNet, channels: int = 512) -> None:
        super().__init__()
        dilate(network.layer4)
        self.body, self.channels = ResNetBody(network), channels
        self.strides = (self.body.strides[-1],)
        self.last = Conv2dNormActivation(self.body.channels[-1], channels, activation_layer=None)
        nn.init.kaiming_uniform_(self.last.get_parameter("0.weight"), a=1)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N C _ _"]]:
        return [self.last(self.body(x)[-1])]
