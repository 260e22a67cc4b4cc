"""Feature maps of encoders: of our ResNets and of timm's CNNs."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moco.encoders.resnet import Bottleneck, ResNet
from moco.recipe import RecipeError


class ResNetBody(nn.Module):
    """The stem and the first `stages` stages of one of our ResNets, with their names. Shares the network's tensors."""

    def __init__(self, network: ResNet, stages: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.stages = [f"layer{index}" for index in range(1, stages + 1)]
        for name in self.stages:
            self.add_module(name, getattr(network, name))
        stride = stem_stride(network)
        self.strides, self.channels = list[int](), list[int]()
        for name in self.stages:
            first = getattr(network, name)[0]
            stride *= stride_of(first)
            self.strides.append(stride)
            self.channels.append(outputs_of(first))

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _ _ _"]]:
        """The output of each stage."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = list[Tensor]()
        for name in self.stages:
            x = getattr(self, name)(x)
            maps.append(x)
        return maps


class TimmBody(nn.Module):
    """The feature maps of a timm network at strides 4, 8, 16 and 32. The network is not changed."""

    def __init__(self, network: nn.Module, strides: Sequence[int] = (4, 8, 16, 32)) -> None:
        super().__init__()
        name = type(network).__name__
        if not hasattr(network, "forward_intermediates"):
            raise RecipeError(
                f"timm's {name} returns no intermediate feature maps: take a ResNet, or another CNN of timm"
            )
        self.network = network
        info = [(entry["reduction"], entry["num_chs"]) for entry in network.feature_info]  # pyright: ignore
        last = {stride: index for index, (stride, _) in enumerate(info)}
        if missing := [stride for stride in strides if stride not in last]:
            raise RecipeError(
                f"a detector needs feature maps of strides {', '.join(map(str, strides))}; timm's {name} has none of "
                f"{', '.join(map(str, missing))}: take a CNN, not a ViT"
            )
        if getattr(network, "pretrained_cfg", {}).get("fixed_input_size"):
            raise RecipeError(
                f"timm's {name} takes images of one size only, and a detector gets images of any size: take a CNN"
            )
        self.indices = [last[stride] for stride in strides]
        self.strides, self.channels = list(strides), [info[index][1] for index in self.indices]

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _ _ _"]]:
        """The feature maps."""
        return self.network.forward_intermediates(x, indices=self.indices, intermediates_only=True)  # pyright: ignore


def stem_stride(network: nn.Module) -> int:
    """The stride of the first feature map: 4, or less for a ResNet with a stem for small images."""
    if not isinstance(network, ResNet):
        return 4
    return network.conv1.stride[0] * (2 if isinstance(network.maxpool, nn.MaxPool2d) else 1)


def stride_of(block: nn.Module) -> int:
    return block.get_submodule("conv2" if isinstance(block, Bottleneck) else "conv1").stride[0]  # pyright: ignore


def outputs_of(block: nn.Module) -> int:
    return block.get_submodule("conv3" if isinstance(block, Bottleneck) else "conv2").out_channels  # pyright: ignore


def dilate(stage: nn.Module) -> None:
    """Give every 3x3 convolution of a stage of bottlenecks, the first included, dilation 2 and stride 1 (difference 8).

    torchvision's replace_stride_with_dilation and our `dilate_last` do not dilate the first block. The paper's appendix
    A.5 dilates "the 3x3 convolutions", and Detectron2's RES5_DILATION all three.
    """
    for module in stage.modules():
        if isinstance(module, Bottleneck):
            module.conv2.stride, module.conv2.dilation, module.conv2.padding = (1, 1), (2, 2), (2, 2)
            if module.downsample is not None:
                module.downsample[0].stride = (1, 1)  # pyright: ignore


def body_of(network: nn.Module, stages: int = 4) -> ResNetBody | TimmBody:
    """The body of an encoder's backbone.

    Raises:
        RecipeError: it is neither one of our ResNets, nor a network of timm with feature maps.
    """
    if isinstance(network, ResNet):
        return ResNetBody(network, stages)
    if hasattr(network, "feature_info"):
        return TimmBody(network)
    raise RecipeError(
        "a detector needs one of our ResNets or a CNN of timm (timm/NAME) as its backbone, got a "
        f"{type(network).__name__}"
    )
