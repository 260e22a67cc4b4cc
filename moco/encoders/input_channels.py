"""Networks for images with other than three channels: another first convolution."""

from typing import cast

from torch import nn


def set_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution of `network`, which takes 3 channels, by a random one that takes `channels`."""
    if channels == 3:
        return
    name = first_convolution(network)
    old = cast(nn.Conv2d, network.get_submodule(name))
    new = nn.Conv2d(
        channels, old.out_channels, cast(tuple[int, int], old.kernel_size), stride=cast(tuple[int, int], old.stride),
        padding=cast(tuple[int, int] | str, old.padding), dilation=cast(tuple[int, int], old.dilation),
        bias=old.bias is not None,
    )  # fmt: skip
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's convolutions
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    network.set_submodule(name, new)


def first_convolution(network: nn.Module) -> str:
    """The name of the first convolution of `network`."""
    return next(name for name, one in network.named_modules() if isinstance(one, nn.Conv2d))
