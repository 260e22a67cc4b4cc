"""The pretrained weights of torchvision and timm, by name. The libraries download them into their own caches."""

import os
from typing import Any

import torch

from moco.encoders.torchvision_timm import is_timm, library_data, timm_size, torchvision_names
from moco.recipe import EncoderSpec
from moco.weights.errors import no_such_weights
from moco.weights.loaded_weights import LoadedWeights, WeightsError
from moco.weights.packaged import find_packaged, read_packaged

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # that timm requests from the hub
TIMEOUT = 10.0  # [s] in which the hub must answer


def read_pretrained(weights: str, size: int | None) -> LoadedWeights | None:
    """The weights of `torchvision/NAME` or `timm/NAME`; None if there is no network of that name.

    Args:
        size: [pixels] of the images that the network is used on, for timm's networks that are made for one size.

    Raises:
        WeightsError: they cannot be downloaded.
    """
    library, _, name = weights.partition("/")
    if library == "torchvision" and weights in torchvision_names():
        return _from_torchvision(name)
    return _from_timm(name, size) if library == "timm" and is_timm(name) else None


def check_library_name(weights: str) -> None:
    """Raise WeightsError for a name torchvision/NAME or timm/NAME that the library does not have."""
    library, _, name = weights.partition("/")
    if library not in ("torchvision", "timm") or os.path.exists(weights):
        return
    if not (weights in torchvision_names() if library == "torchvision" else is_timm(name)):
        raise no_such_weights(weights)


def file_on_machine(weights: str) -> str | None:
    """The file that `pretrained(weights)` reads, in a package or in the caches of the libraries; None: a download."""
    library, _, name = weights.partition("/")
    if library == "torchvision" and weights in torchvision_names():
        file = os.path.join(torch.hub.get_dir(), "checkpoints", torchvision_file(name))
        return file if os.path.isfile(file) else None
    if library != "timm" or not is_timm(name):
        return None
    import timm

    if (file := find_packaged(name)) is not None:
        return str(file)
    config = timm.get_pretrained_cfg(name)
    return None if config is None else find_cached_file(config)


def torchvision_file(name: str) -> str:
    """The name of the file with torchvision's newest weights of the network `name` in the cache."""
    from torchvision import models

    return os.path.basename(models.get_model_weights(name)["DEFAULT"].url)


def find_cached_file(config: Any) -> str | None:
    """The file of timm's weights in the cache of Hugging Face; None if it is not there."""
    import huggingface_hub

    if not config.hf_hub_id:
        return None
    name, _, revision = config.hf_hub_id.partition("@")
    for file in (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES:
        found = huggingface_hub.try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(found, str):
            return found
    return None


def _from_torchvision(name: str) -> LoadedWeights:
    from torchvision import models

    where = f"torchvision/{name}"
    try:
        weights = models.get_model_weights(name)["DEFAULT"]
        tensors = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:
        raise _unreachable(where, error) from None
    data = library_data(where)
    if name in ("googlenet", "inception_v3"):  # their weights are for this; torchvision's classes convert to it inside
        data = data.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    return LoadedWeights(
        where, dict(tensors), spec=EncoderSpec(name=where), data=data, recipe="pretrained by torchvision"
    )


def _from_timm(name: str, size: int | None) -> LoadedWeights:
    import timm

    where, config = f"timm/{name}", timm.get_pretrained_cfg(name)
    if (file := find_packaged(name)) is not None:
        tensors = read_packaged(file, timm.create_model(name).state_dict())
        spec, data = EncoderSpec(name=where), library_data(where)
        return LoadedWeights(where, tensors, spec=spec, data=data, recipe=f"pretrained: {file.name} of its package")
    if config is None or not config.has_weights:
        raise WeightsError(f"timm has no pretrained weights for {name}: give a file, or one of timm.list_pretrained()")
    check_connection(where, config)
    cached = None if config.custom_load else find_cached_file(config)
    try:
        # with its classifier: only then does timm check that no name is missing
        network = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"file": cached} if cached else None, **timm_size(name, size)
        )  # given the file, timm does not ask the hub for a newer one
    except Exception as error:
        raise _unreachable(where, error) from None
    spec, data = EncoderSpec(name=where), library_data(where)
    return LoadedWeights(where, network.state_dict(), spec=spec, data=data, recipe="pretrained by timm")


def check_connection(where: str, config: Any) -> None:
    """Raise WeightsError where timm would fetch a file from the Hugging Face hub, and it cannot be reached.

    The hub's client retries for a minute where there is no connection. A file in its cache needs none.
    """
    import huggingface_hub

    if not config.hf_hub_id or config.file or config.state_dict:
        return
    if find_cached_file(config) is not None:
        return
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=TIMEOUT)
    except Exception as error:  # the hub's library has changed its HTTP client
        raise _unreachable(where, error) from None


def _unreachable(where: str, error: Exception) -> WeightsError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return WeightsError(
        f"the pretrained weights of {where} could not be loaded ({reason}). Check the connection (and "
        "HF_HUB_OFFLINE). To work offline, run the command once with a connection, which fills the cache (HF_HOME, "
        f"TORCH_HOME), or copy the weights file from another machine and give it: --init FILE --model {where} for "
        f"pretrain, FILE --architecture {where} for other commands"
    )
