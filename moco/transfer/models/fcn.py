"""Semantic segmentation: the fully convolutional network of the paper's appendix A.5 (FCN-16s)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad
from torchvision.ops import Conv2dNormActivation

from moco.distributed import total, world_size
from moco.encoders.resnet import Bottleneck, ResNet
from moco.recipe import RecipeError
from moco.transfer.models.backbones import ResNetBody, TimmBody, dilate
from moco.transfer.models.detector import MEAN, RGB, STD
from moco.transfer.models.norms import freeze, synchronize
from moco.transfer.models.settings import Norm
from moco.transfer.semantic import IGNORED

STRIDE = 16  # [pixels] of the last feature map (A.5)


class FCN(nn.Module):
    """The encoder at stride 16, two 3x3 convolutions of dilation 6 with BN and ReLU, and a 1x1 convolution.

    A.5: "The 3x3 convolutions in conv5 blocks have dilation 2 and stride 1. This is followed by two extra 3x3
    convolutions of 256 channels, with BN and ReLU, and then a 1x1 convolution for per-pixel classification. The total
    stride is 16 (FCN-16s). We set dilation = 6 in the two extra 3x3 convolutions". torchvision's fcn_resnet50 has
    stride 8 and another head. The logits are upsampled bilinearly; the paper does not say how.
    """

    def __init__(
        self,
        body: ResNetBody | TimmBody,
        num_classes: int,
        *,
        channels: int = 256,
        mean: RGB = MEAN,
        std: RGB = STD,
    ) -> None:
        super().__init__()
        self.body, inputs = body, body.channels[-1]
        layers = [Conv2dNormActivation(count, channels, dilation=6) for count in (inputs, channels)]
        self.head = nn.Sequential(*layers, nn.Conv2d(channels, num_classes, 1))
        for layer in self.head.modules():
            if isinstance(layer, nn.Conv2d):  # not in the paper; Detectron2's usual initialization of such layers
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.normal_(layer.weight, std=0.01)
                    nn.init.zeros_(layer.bias)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([255 * value for value in mean]), persistent=False)
        self.register_buffer("std", torch.tensor([255 * value for value in std]), persistent=False)

    def forward(
        self, images: UInt8[Tensor, "N 3 H W"], labels: Integer[Tensor, "N H W"] | None = None
    ) -> dict[str, Tensor] | Float[Tensor, "N K H W"]:
        """Return losses by name in training mode, and the logits of each pixel's class in evaluation mode."""
        if not self.training:
            return self.logits(images)
        if labels is None:
            raise ValueError("expected a class for each pixel in training mode, got none: call eval() for predictions")
        return self.loss(images, labels)

    def logits(self, images: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N K H W"]:
        """The logits of each pixel's class.

        Cell i of the maps is centred on pixel 16 i. So images are padded with the mean colour at the right and the
        bottom to 16 n + 1 pixels, the form of the paper's crops (513 and 769), and the maps are upsampled with aligned
        corners. Otherwise logits would be shifted by up to 15 pixels.
        """
        (height, width), stride = images.shape[2:], self.body.strides[-1]
        # rounded up, by a division of a positive number: ONNX divides towards 0
        padded = [(side + stride - 2) // stride * stride + 1 for side in (height, width)]
        x = (images.to(self.mean.device) - self.mean[:, None, None]) / self.std[:, None, None]
        x = pad(x, (0, padded[1] - width, 0, padded[0] - height))
        maps = self.head(self.body(x)[-1])
        return interpolate(maps, padded, mode="bilinear", align_corners=True)[..., :height, :width]

    def loss(self, images: UInt8[Tensor, "N 3 H W"], labels: Integer[Tensor, "N H W"]) -> dict[str, Tensor]:
        """The mean cross entropy over all pixels whose label is not 255; 0 if there are none.

        The mean of this loss over the ranks is the mean over the labelled pixels of all ranks, so the result does not
        depend on the number of ranks. All ranks must call this together.
        """
        logits, labels = self.logits(images).float(), labels.to(self.mean.device).long()
        known = total((labels != IGNORED).sum()).clamp(min=1)
        return {"loss_seg": cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") * world_size() / known}

    @torch.no_grad()
    def predict(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[UInt8[Tensor, "_ _"]]:
        """The class of each pixel, each image at its own size."""
        return [self.logits(image[None])[0].argmax(dim=0).to(torch.uint8) for image in images]


def build_segmenter(
    network: nn.Module, num_classes: int, *, norm: Norm = "tuned", channels: int = 256, mean: RGB = MEAN, std: RGB = STD
) -> FCN:
    """Build an FCN on an encoder's backbone. New layers have random weights.

    Args:
        network: one of our ResNets, which becomes part of the FCN; or a CNN of timm, of which a copy with stride 16 is
            built if timm can, otherwise one with its usual stride (see `body.strides`).
        num_classes: without the label 255, which is ignored.
        norm: see `build_detector`.

    Raises:
        RecipeError: the FCN cannot be built on this network.
    """
    if not 0 < num_classes <= IGNORED:
        raise RecipeError(f"segment takes 1 to 255 classes, because label 255 means ignored, got {num_classes}")
    body = _body(network)
    if norm == "frozen":
        freeze(body)
    segmenter = FCN(body, num_classes, channels=channels, mean=mean, std=std)
    if norm == "sync":
        synchronize(segmenter)
    return segmenter


def _body(network: nn.Module) -> ResNetBody | TimmBody:
    if not isinstance(network, ResNet):
        return _timm_body(network)
    if network.net.block is not Bottleneck:
        if (body := ResNetBody(network)).strides[-1] <= STRIDE:  # a stem for small images: no dilation is needed
            return body
        raise RecipeError(
            "segment needs a ResNet of ours with bottleneck blocks (resnet50 or deeper), whose last stage can be "
            f"dilated, or one of stride {STRIDE} in all, with encoder.stem=3x3/2: take another encoder"
        )
    dilate(network.layer4)
    return ResNetBody(network)


def _timm_body(network: nn.Module) -> TimmBody:
    import timm

    name = getattr(network, "pretrained_cfg", {}).get("architecture")
    if name is None:
        raise RecipeError(f"segment needs one of our ResNets or a CNN of timm, got a {type(network).__name__}")
    try:
        dilated = timm.create_model(name, num_classes=0, output_stride=16)
    except (TypeError, AssertionError, NotImplementedError):  # how timm's classes refuse an output stride
        return TimmBody(network, strides=(network.feature_info[-1]["reduction"],))  # pyright: ignore
    dilated.load_state_dict(network.state_dict())
    return TimmBody(dilated, strides=(16,))
