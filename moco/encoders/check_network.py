"""Run a copy of a network on black images to learn its number of features, and refuse one that cannot be trained."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from moco.recipe import DataSpec, RecipeError
from moco.text import first_few, plural

CLASSIFIERS = {"fc", "classifier", "head", "heads", "last_linear"}  # in torchvision, timm and Cadene's models


class Probed(NamedTuple):
    """The result of a dry run."""

    num_features: int  # D
    last: str | None = None  # the last linear layer, if its outputs are the features and it may be a classifier


def probe(
    network: nn.Module, what: str, size: int, *, own_size: int | None, training: bool, channels: int = 3
) -> Probed:
    """Find D by a dry run of a copy. `network`, its buffers and torch's random state do not change.

    Args:
        what: the network's name in messages.
        own_size: [pixels] the image size that the network was designed for, if known.
        training: also run it in training mode.
        channels: of the images.

    Raises:
        RecipeError: it does not take images of `size` pixels, or does not return features.
    """
    try:
        tried = copy.deepcopy(network)
    except Exception as error:
        raise RecipeError(
            f"{what} cannot be copied by copy.deepcopy ({_reason(error)}). The key encoder is a copy of the network: "
            "give a module that can be copied"
        ) from None
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _last_linear(tried) as outputs:
        y = _features(tried.eval(), what, size, own_size, shape=(1, channels))
        last = _classifier(outputs, y)
        num_features = pool_features(y).shape[1]
        if training:
            in_training = pool_features(_features(tried.train(), what, size, own_size, shape=(2, channels))).shape[1]
            if in_training != num_features:
                raise RecipeError(
                    f"{what} gives {num_features} features in evaluation mode and {in_training} in training mode: "
                    "expected the same features in both"
                )
    return Probed(num_features, last)


def check_module(network: nn.Module, *, training: bool) -> None:
    """Raise RecipeError for a user's module that cannot be trained or saved."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    if lazy := [name for name, tensor in tensors if is_lazy(tensor)]:
        raise RecipeError(
            f"your module has lazy layers, which have no weights yet ({first_few(lazy)}): call it once on images "
            "of the size that it is for, model(torch.zeros(2, 3, 224, 224)), before you give it"
        )
    floats = [(name, x.dtype) for name, x in network.named_parameters() if x.is_floating_point()]
    if other := [f"{name} is {dtype}" for name, dtype in floats if dtype != torch.float32]:
        raise RecipeError(
            f"the parameters of your module must be float32, and {other[0].replace('torch.', '')}: give model.float(). "
            "To compute in half precision, set the precision to bf16 or fp16 (--precision, precision=)"
        )
    if training and not any(x.requires_grad for x in network.parameters()):
        raise RecipeError(
            "no parameter of your module takes a gradient (requires_grad), so nothing would be trained: give "
            "model.requires_grad_(True), or leave at least some layers to be trained"
        )
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise RecipeError(
                f"the state of your module must be tensors, and '{name}' (of get_extra_state) is a "
                f"{type(value).__name__}: return a tensor there, or keep it in a buffer (register_buffer)"
            )


def unwrap_module(network: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel or DistributedDataParallel, whose state has no added prefix."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = network.module if isinstance(network, parallel) else dict(network.named_children()).get("_orig_mod")
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def unwrap_parts(network: nn.Module) -> list[str]:
    """Unwrap the parts of `network` in place. Returns the names of the parts that were wrapped."""
    names: list[str] = []
    while True:
        parts = [(name, part) for name, part in network.named_modules() if name and unwrap_module(part) is not part]
        if not parts:
            return names
        name, part = parts[0]  # the outermost first: unwrapping it renames the parts inside
        network.set_submodule(name, unwrap_module(part))
        names.append(name)


def pool_features(y: Tensor) -> Float[Tensor, "N D"]:
    """Features unchanged; a map N x D x h x w or tokens N x T x D averaged over the positions."""
    return y.flatten(2).mean(dim=2) if y.ndim == 4 else y.mean(dim=1) if y.ndim == 3 else y


def check_small_crops(network: nn.Module, num_features: int, data: DataSpec) -> None:
    """Raise RecipeError if a network for images of `data.size` pixels gives no such features of `data.small_size`."""
    weight = next(network.parameters(), torch.empty(0))
    crops = torch.zeros(2, data.channels, data.small_size, data.small_size, device=weight.device, dtype=weight.dtype)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            found = pool_features(copy.deepcopy(network).train()(crops)).shape[1]
            if found != num_features:
                raise ValueError(f"it gives {found} features of them, not {num_features}")
        except Exception as error:
            raise RecipeError(
                f"the network takes images of {data.size} x {data.size} pixels, but no small crops of "
                f"{data.small_size} x {data.small_size} ({_reason(error)}): set data.small_size={data.size}, or take "
                "another network"
            ) from None


def size_error(what: str, size: int, own_size: int | None, error: Exception, todo: str = "") -> RecipeError:
    """The error for a network that fails on images of `size` pixels."""
    if own_size not in (None, size):
        todo = f"it expects {own_size} x {own_size}: set data.size={own_size}"
    todo = todo or "set another data.size, or take another network"
    return RecipeError(f"{what} does not take images of {size} x {size} pixels ({_reason(error)}); {todo}")


def _features(network: nn.Module, what: str, size: int, own_size: int | None, *, shape: tuple[int, int]) -> Tensor:
    """The output of the network for black images, of which `shape` has (number, channels). Raises RecipeError."""
    images, channels = shape
    weight = next(network.parameters(), torch.empty(0))
    mode = "in training mode" if network.training else "in evaluation mode"
    try:
        y: Any = network(torch.zeros(images, channels, size, size, device=weight.device, dtype=weight.dtype))
    except Exception as error:
        if network.training:
            raise RecipeError(
                f"{what} fails {mode} on {images} images of {size} x {size} pixels ({_reason(error)}): expected a "
                "network that runs in both modes"
            ) from None
        raise size_error(what, size, own_size, error, _other_channels(network, channels)) from None
    if not isinstance(y, Tensor) or y.ndim not in (2, 3, 4) or len(y) != images or not y.is_floating_point():
        came = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise RecipeError(
            "an encoder must give floating-point features N x D, a map N x D x h x w or tokens N x T x D; for "
            f"{plural(images, 'image')} {what} gave {came} {mode}: wrap it in a module that returns the features alone"
        )
    return y


def _other_channels(network: nn.Module, channels: int) -> str:
    """Advice on a first convolution that does not take the images' channels; empty if it takes them."""
    first = next((one for one in network.modules() if isinstance(one, nn.Conv2d)), None)
    if first is None or first.in_channels == channels:
        return ""
    images = "all images are RGB" if channels == 3 else f"the images have {channels}"
    return (
        f"its first convolution takes {plural(first.in_channels, 'channel')}, but {images}: give it a first "
        f"convolution with {plural(channels, 'input channel')}, or read all bands of the images (--bands, bands=True)"
    )


@contextmanager
def _last_linear(network: nn.Module) -> Iterator[list[tuple[str, nn.Linear, Tensor]]]:
    """Context manager: records the linear layers that run, in order, with their outputs."""
    ran: list[tuple[str, nn.Linear, Tensor]] = []
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]

    def hook_of(name: str, layer: nn.Linear) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, y: ran.append((name, layer, y))

    handles = [layer.register_forward_hook(hook_of(name, layer)) for name, layer in linear]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def _classifier(ran: list[tuple[str, nn.Linear, Tensor]], y: Tensor) -> str | None:
    """The layer that returned `y`, if it is linear and has fewer outputs than inputs, or a classifier's name."""
    for name, layer, output in ran[-1:]:
        named = not CLASSIFIERS.isdisjoint(name.split("."))
        if output is y and (named or layer.in_features > layer.out_features):
            return f"'{name}' ({layer.in_features} to {layer.out_features})"
    return None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
