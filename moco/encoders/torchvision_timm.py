"""Backbones that are not ours: any classification network of torchvision or timm by name, or the user's own module.

Only the classifier is removed from a library's network, so its parameters keep their names. Nothing is downloaded.

The libraries are imported only when needed: importing both takes two seconds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from moco.encoders.check_network import check_module, probe, size_error, unwrap_module, unwrap_parts
from moco.encoders.input_channels import set_channels
from moco.recipe import DataSpec, RecipeError

Dense = Callable[[nn.Module, Tensor], Tensor]


class Backbone(NamedTuple):
    """A network without its classifier, and what an encoder needs to know about it."""

    network: nn.Module  # images N x 3 x H x W -> features
    num_features: int  # D
    dense: Dense  # (network, images) -> feature map N x D' x h x w, or patch tokens N x T x D'
    cautions: tuple[str, ...] = ()  # warnings for the user


class Parts(NamedTuple):
    """The names of two modules of a torchvision network."""

    map: str  # its output is the last feature map, or the tokens
    classifier: str  # the layer with one output for each class


TORCHVISION: dict[str, Parts] = {  # by the name of the class
    "AlexNet": Parts("features", "classifier.6"),
    "ConvNeXt": Parts("features", "classifier.2"),
    "DenseNet": Parts("features", "classifier"),  # the ReLU after `features` is in place, so the map includes it
    "EfficientNet": Parts("features", "classifier.1"),
    "GoogLeNet": Parts("inception5b", "fc"),
    "Inception3": Parts("Mixed_7c", "fc"),
    "MNASNet": Parts("layers", "classifier.1"),
    "MaxVit": Parts("blocks.3", "classifier.5"),
    "MobileNetV2": Parts("features", "classifier.1"),
    "MobileNetV3": Parts("features", "classifier.3"),
    "RegNet": Parts("trunk_output", "fc"),
    "ResNet": Parts("layer4", "fc"),
    "ShuffleNetV2": Parts("conv5", "fc"),
    "SqueezeNet": Parts("features", "classifier.1"),
    "SwinTransformer": Parts("permute", "head"),
    "VGG": Parts("features", "classifier.6"),
    "VisionTransformer": Parts("encoder", "heads.head"),  # tokens, the class token first
}
WITHOUT_AUXILIARY = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}
UNDECLARED_CLASS_TOKEN = ("CoaT", "VOLO")  # timm's classes that have a class token and do not declare it
CLASS_TOKEN_ONLY = ("PoolingVisionTransformer",)  # timm's classes that return no patch tokens


def torchvision_names() -> list[str]:
    from torchvision import models

    return [f"torchvision/{name}" for name in models.list_models(module=models)]


def timm_names() -> list[str]:
    import timm

    return [f"timm/{name}" for name in timm.list_models()]


def is_timm(name: str) -> bool:
    """Whether timm has a network `name` (without "timm/"); for "NAME.TAG", whether it also has weights of that tag."""
    import timm

    try:
        return timm.is_model(name) and timm.get_pretrained_cfg(name) is not None
    except RuntimeError:  # unknown tag
        return False


def torchvision_backbone(name: str, size: int | None, *, training: bool = False, channels: int = 3) -> Backbone:
    """torchvision's network `name` (without "torchvision/"), for images of `size` pixels, with random weights.

    Raises:
        RecipeError: it does not take images of that size.
    """
    from torchvision import models

    network = models.get_model(name, weights=None, **WITHOUT_AUXILIARY.get(name, {}))
    set_channels(network, channels)
    parts = TORCHVISION[type(network).__name__]
    network.set_submodule(parts.classifier, nn.Identity())
    dense = partial(_tokens_of, parts.map) if parts.map == "encoder" else partial(_output_of, parts.map)
    own_size = library_data(f"torchvision/{name}").size
    found = probe(
        network, f"torchvision/{name}", size or own_size, own_size=own_size, training=training, channels=channels
    )
    return Backbone(network, found.num_features, dense)


def timm_backbone(name: str, size: int | None, *, training: bool = False, channels: int = 3) -> Backbone:
    """timm's network `name` (without "timm/"), for images of `size` pixels, with random weights.

    Raises:
        RecipeError: it does not take images of that size.
    """
    import timm

    own_size = library_data(f"timm/{name}").size
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **timm_size(name, size))
    except Exception as error:  # timm's checks of the size raise errors of many types
        raise size_error(f"timm/{name}", size or own_size, own_size, error) from None
    found = probe(network, f"timm/{name}", size or own_size, own_size=own_size, training=training, channels=channels)
    return Backbone(network, found.num_features, _timm_map)


def own_backbone(network: nn.Module, size: int | None, *, training: bool = False, channels: int = 3) -> Backbone:
    """The user's own module: images N x 3 x H x W to features N x D, a map N x D x h x w or tokens N x T x D.

    Raises:
        RecipeError: it does not take images of `size` pixels (None: 224), returns something else, or cannot be trained.
    """
    inside, cautions = unwrap_module(network), list[str]()
    if inside is not network:
        cautions.append(
            f"your module is wrapped in {type(network).__name__}: the {type(inside).__name__} inside is what is "
            "trained and saved, so that its weights load without the wrapper. --set compute.compile=true compiles it"
        )
    if parts := unwrap_parts(inside):
        cautions.append(
            f"your module has parts that were wrapped in torch.compile or DataParallel ({', '.join(parts)}): they are "
            "replaced by the modules inside, so that its weights load without the wrappers. --set compute.compile=true "
            "compiles the whole"
        )
    check_module(inside, training=training)
    found = probe(inside, "your module", size or 224, own_size=None, training=training, channels=channels)
    if found.last is not None:
        cautions.append(
            f"the features of your module are the outputs of its last layer, {found.last}. If that is a classifier, "
            "put torch.nn.Identity() in its place: the features before it are the ones to transfer"
        )
    return Backbone(inside, found.num_features, _own_map, tuple(cautions))


def timm_size(name: str, size: int | None) -> dict[str, Any]:
    """The arguments of timm.create_model that adapt the network `name` to images of `size` pixels."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if size is None or config is None or not config.fixed_input_size or config.input_size[-1] == size:
        return {}
    return {"img_size": size}


def library_data(name: str) -> DataSpec:
    """Size and normalization of the images that the library's weights expect; ImageNet's for other names."""
    library, _, name = name.rpartition("/")
    if library == "torchvision":
        from torchvision import models

        expected = models.get_model_weights(name)["DEFAULT"].transforms()
        size, resize = expected.crop_size[0], expected.resize_size[0]
        mean, std = expected.mean, expected.std
    elif library == "timm":
        import timm

        config = timm.get_pretrained_cfg(name)
        assert config is not None  # checked by `is_timm`
        size, mean, std = config.input_size[-1], config.mean, config.std
        resize = int(size / config.crop_pct)
    else:
        return DataSpec()
    return DataSpec(size=size, eval_resize=resize, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def classifier(name: str, network: nn.Module) -> tuple[str, ...]:
    """The modules of the library's network `name` that its backbone `network` lacks: the classifier."""
    library, _, plain = name.rpartition("/")
    if library == "torchvision":
        auxiliary = ("aux1", "aux2", "AuxLogits") if plain in WITHOUT_AUXILIARY else ()
        return (TORCHVISION[type(network).__name__].classifier, *auxiliary)
    if library == "timm":
        import timm

        with torch.device("meta"):
            full = timm.create_model(plain).state_dict()
        return tuple(sorted({key.rpartition(".")[0] for key in full.keys() - network.state_dict().keys()}))
    return () if name == "custom" else ("fc", "head")  # of ResNets, of ViTs


def _output_of(name: str, network: nn.Module, x: Tensor) -> Tensor:
    """The output of the module `name` when the network runs on `x`."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, inputs: Any, output: Any) -> None:
        caught.append(output)

    handle = network.get_submodule(name).register_forward_hook(catch)
    try:
        network(x)
    finally:
        handle.remove()
    return caught[0]


def _tokens_of(name: str, network: nn.Module, x: Tensor) -> Tensor:
    return _output_of(name, network, x)[:, 1:]  # without the class token


def _timm_map(network: nn.Module, x: Tensor) -> Tensor:
    y = network.forward_features(x)  # pyright: ignore[reportCallIssue]
    kind = type(network).__name__
    if isinstance(y, Tensor) and y.ndim == 4:
        return y.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else y
    if isinstance(y, Tensor) and y.ndim == 3 and kind not in CLASS_TOKEN_ONLY:
        return y[:, getattr(network, "num_prefix_tokens", 1 if kind in UNDECLARED_CLASS_TOKEN else 0) :]
    raise RecipeError(f"timm's {kind} has no single feature map: it gives pooled features only (dense=False)")


def _own_map(network: nn.Module, x: Tensor) -> Tensor:
    y = network(x)
    if y.ndim == 2:
        raise RecipeError("your module gives pooled features N x D and no feature map: use dense=False")
    return y
