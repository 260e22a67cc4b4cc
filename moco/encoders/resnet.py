"""ResNets of any width, with stems for large and small images, and torchvision's parameter names.

torchvision hard-codes the 7x7 stem and its 64 channels; here both are arguments. Where torchvision has the same
network, names, shapes and features are equal. Its residual blocks are not imported, because importing torchvision loads
torch's compiler, which takes a second.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from moco.recipe import EncoderSpec, RecipeError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (arXiv:1512.03385, Fig. 5 left)."""

    expansion = 1  # output channels / `planes`

    def __init__(
        self,
        inputs: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        group_width: int = 64,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        assert (groups, group_width, dilation) == (1, 64, 1)  # `resnet` checks this
        self.conv1, self.bn1 = _conv3x3(inputs, planes, stride), nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv3x3(planes, planes), nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Float[Tensor, "N D h w"]) -> Float[Tensor, "N ..."]:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (Fig. 5 right). The 3x3 has the stride, as in torchvision."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        group_width: int = 64,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        width, outputs = planes * group_width // 64 * groups, planes * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv3x3(width, width, stride, groups, dilation), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Float[Tensor, "N D h w"]) -> Float[Tensor, "N ..."]:
        y = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


def _conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, 3, stride=stride, padding=dilation, groups=groups, bias=False, dilation=dilation
    )  # fmt: skip


class ResNetShape(NamedTuple):
    """The shape of a ResNet (He et al., arXiv:1512.03385, Table 1) or ResNeXt (arXiv:1611.05431)."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]  # in each stage
    groups: int = 1  # of the 3x3 convolutions
    group_width: int = 64  # channels of each group in the first stage


NETS: dict[str, ResNetShape] = {
    "resnet10": ResNetShape(BasicBlock, (1, 1, 1, 1)),
    "resnet18": ResNetShape(BasicBlock, (2, 2, 2, 2)),
    "resnet34": ResNetShape(BasicBlock, (3, 4, 6, 3)),
    "resnet50": ResNetShape(Bottleneck, (3, 4, 6, 3)),
    "resnet101": ResNetShape(Bottleneck, (3, 4, 23, 3)),
    "resnet152": ResNetShape(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x8d": ResNetShape(Bottleneck, (3, 4, 6, 3), groups=32, group_width=8),  # MoCo v1, Table 1: 63.9
}


class ResNet(nn.Module):
    """Images to features: a stem, four stages of residual blocks, and global average pooling.

    Args:
        net: one of `NETS`.
        channels: of the images.
        stem: "7x7/2+pool" is ImageNet's (its output has stride 4). "3x3" (stride 1) and "3x3/2" (stride 2) are for
            small images and have no pooling.
        width: multiplies the channels of every layer, the stem included: R50w2x and R50w4x of MoCo v1's Table 1.
            (torchvision's wide_resnet50_2 is another network: it widens only the 3x3 convolutions.)
        dilate_last: the last stage has stride 1 and dilation 2 instead of stride 2; bottleneck blocks only.
        zero_init: the weight of the last BN of each residual block starts at 0, so that each block starts as the
            identity (MoCo v3; torchvision's zero_init_residual).
    """

    def __init__(
        self,
        net: ResNetShape,
        *,
        channels: int = 3,
        stem: str = "7x7/2+pool",
        width: float = 1.0,
        dilate_last: bool = False,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.channels = round(64 * width)  # of the last layer built so far
        kernel, stride = {"7x7/2+pool": (7, 2), "3x3": (3, 1), "3x3/2": (3, 2)}[stem]
        self.conv1 = nn.Conv2d(channels, self.channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(self.channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "7x7/2+pool" else nn.Identity()
        self.layer1 = self._stage(0, round(64 * width), stride=1)
        self.layer2 = self._stage(1, round(128 * width), stride=2)
        self.layer3 = self._stage(2, round(256 * width), stride=2)
        last = round(512 * width)
        self.layer4 = self._stage(3, last, stride=1, dilation=2) if dilate_last else self._stage(3, last, stride=2)
        self.num_features = self.channels
        self._initialize(keep_stem_init=stem == "3x3", zero_init=zero_init)

    def _stage(self, index: int, planes: int, *, stride: int, dilation: int = 1) -> nn.Sequential:
        """One stage. Its first block has the stride, changes the channels, and has no dilation (as in torchvision)."""
        block, inputs, outputs = self.net.block, self.channels, planes * self.net.block.expansion
        downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))
        groups, group_width = self.net.groups, self.net.group_width
        layers = [block(inputs, planes, stride, downsample, groups, group_width)]
        for _ in range(1, self.net.blocks[index]):
            layers.append(block(outputs, planes, groups=groups, group_width=group_width, dilation=dilation))
        self.channels = outputs
        return nn.Sequential(*layers)

    def _initialize(self, *, keep_stem_init: bool, zero_init: bool) -> None:
        """torchvision's initialization: He normal with fan-out for convolutions; BN weight 1 and bias 0.

        The authors' CIFAR notebook replaces the stem after torchvision has initialized the network, so its 3x3 stem has
        nn.Conv2d's default uniform weights. `keep_stem_init` does the same here. No paper uses the stem "3x3/2".
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not (keep_stem_init and module is self.conv1):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init and isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.get_parameter("bn2.weight" if isinstance(module, BasicBlock) else "bn3.weight"))

    def dense(self, x: Float[Tensor, "N c H W"]) -> Float[Tensor, "N D h w"]:
        """The feature map of the last stage."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x: Float[Tensor, "N c H W"]) -> Float[Tensor, "N D"]:
        """The feature map averaged over its positions."""
        return nn.functional.adaptive_avg_pool2d(self.dense(x), 1).flatten(1)


def resnet(spec: EncoderSpec) -> ResNet:
    """The ResNet that `spec` describes, with random weights. Raises RecipeError where there is none."""
    net = NETS[spec.name]
    if not (spec.width * net.group_width).is_integer():
        raise RecipeError(
            f"encoder.width must give every layer a whole number of channels: for {spec.name} a multiple of "
            f"1/{net.group_width}, got {spec.width}"
        )
    if spec.dilate_last and net.block is BasicBlock:
        raise RecipeError(
            f"encoder.dilate_last needs bottleneck blocks, and {spec.name} has basic ones: use resnet50 or deeper"
        )
    return ResNet(
        net, channels=spec.channels, stem=spec.stem, width=spec.width, dilate_last=spec.dilate_last,
        zero_init=spec.zero_init,
    )  # fmt: skip
