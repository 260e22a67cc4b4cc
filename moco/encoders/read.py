"""Weights in: a run, an encoder folder, a checkpoint, a library's file or its hub -> tensors by name.

Nothing in a file is executed: safetensors, or torch.load(weights_only=True). What cannot be read is an error, never
random weights in its place.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from moco.encoders.library import classifier, is_timm, library_data, timm_size, torchvision_names
from moco.encoders.resnet import NETS, resnet
from moco.recipe import DataSpec, EncoderSpec, Part, Recipe, RecipeError

Weights = str | Path


class WeightsError(RecipeError):
    """Weights that are not there, cannot be read, or are of another network."""


class Config(Part):
    """What is known of an encoder besides its weights: config.json of an encoder folder."""

    format: Literal[1] = 1
    made_by: str = ""  # program and version
    encoder: EncoderSpec
    num_features: int  # D
    data: DataSpec  # the images it is for: size, eval_resize, mean, std
    recipe: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)  # steps, epochs, images, scores
    note: str = Field(default="", exclude=True)  # what was read from where, and what was left out

    def to_json(self) -> str:
        return self.model_dump_json(indent=2, exclude={"data": {"views"}}) + "\n"


@dataclass(frozen=True)
class Found:
    """What was read, and what is known of it."""

    where: str  # what to call it
    backbone: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)
    spec: EncoderSpec | None = None
    data: DataSpec | None = None
    recipe: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def find(weights: Weights, *, size: int | None = None) -> Found:
    """Read `weights`: a folder or file of this project, a state dict, or the name of a library's pretrained network.

    Args:
        size: [pixels] of the images that a pretrained network is wanted for, where it can be had for several.

    Raises:
        WeightsError: there is no such thing, it cannot be read, or it cannot be had.
    """
    path = Path(weights)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        beside = path.parent / "config.json"
        return _encoder_folder(path.parent) if path.name == "model.safetensors" and beside.exists() else _file(path)
    library, _, name = str(weights).partition("/")
    if library == "torchvision" and str(weights) in torchvision_names():
        return _from_torchvision(name)
    if library == "timm" and is_timm(name):
        return _from_timm(name, size)
    raise WeightsError(
        f"there are no weights '{weights}': expected a run folder, an encoder folder, a .pt, .pth or .safetensors "
        "file, or torchvision/NAME or timm/NAME for their pretrained weights"
    )


def put(found: Found, network: nn.Module, *, name: str) -> str:
    """Copy the weights found into `network`, the backbone called `name`. Returns a sentence that says what was done.

    Raises:
        WeightsError: names are missing or left over, or shapes differ. A classifier is left out and named instead.
    """
    wanted = network.state_dict()
    extra = [key for key in found.backbone if key not in wanted]
    ends = tuple(f"{module}." for module in classifier(name, network)) if extra else ()
    dropped = [key for key in extra if key.startswith(ends)]
    troubles = {
        "missing": [key for key in wanted if key not in found.backbone and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in extra if key not in dropped],
        "of another shape": [
            f"{key} {list(found.backbone[key].shape)} instead of {list(wanted[key].shape)}"
            for key in wanted
            if key in found.backbone and found.backbone[key].shape != wanted[key].shape
        ],
    }
    if any(troubles.values()):
        lines = "; ".join(f"{what}: {_few(keys)}" for what, keys in troubles.items() if keys)
        raise WeightsError(f"{found.where} holds other weights than those of {name} without its classifier ({lines})")
    kept = {key: value for key, value in found.backbone.items() if key in wanted}
    network.load_state_dict(kept, strict=False)  # files from before 2018 lack num_batches_tracked, which nothing uses
    without = f"; its classifier ({_few(dropped)}) was left out" if dropped else ""
    return f"{len(kept)} tensors of {name} read from {found.where}{without}"


def recognised(tensors: dict[str, Tensor]) -> EncoderSpec | None:
    """The ResNet with ImageNet's stem whose names and shapes these are, or None. Dilation leaves no trace in them."""
    stem = tensors.get("conv1.weight")
    if stem is None or stem.ndim != 4 or stem.shape[-1] != 7:
        return None
    shapes = _shapes(tensors)
    for name in NETS:
        spec = EncoderSpec(name=name, width=stem.shape[0] / 64)
        with torch.device("meta"):
            if (spec.width * NETS[name].group_width).is_integer() and _shapes(resnet(spec).state_dict()) == shapes:
                return spec
    for name in torchvision_names():
        if "resnext" in name or "wide_resnet" in name:
            with torch.device("meta"):
                if _shapes(models.get_model(name.partition("/")[2]).state_dict()) == shapes:
                    return EncoderSpec(name=name)
    return None


def _folder(path: Path) -> Found:
    """An encoder folder, or a run: its encoder/, or else its newest readable checkpoint."""
    for folder in (path / "encoder", path):
        if (folder / "model.safetensors").exists() and (folder / "config.json").exists():
            return _encoder_folder(folder)
    newest_first = sorted((path / "checkpoints").glob("step_*.pt"), reverse=True)
    unreadable: list[str] = []
    for file in newest_first:
        try:
            found = _file(file)
        except WeightsError as error:
            unreadable.append(str(error))
            continue
        newer = f" ({len(unreadable)} newer could not be read)" if unreadable else ""
        return replace(found, where=found.where + newer)
    if unreadable:
        raise WeightsError(f"no checkpoint of {path} can be read: {'; '.join(unreadable)}")
    raise WeightsError(
        f"{path} is neither a run (encoder/, checkpoints/step_*.pt) nor an encoder (model.safetensors, config.json)"
    )


def _encoder_folder(path: Path) -> Found:
    try:
        config = Config.model_validate_json((path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path / 'config.json'} is not that of an encoder, format 1: {reason}") from None
    return Found(
        str(path), _tensors(path / "model.safetensors"),
        spec=config.encoder, data=config.data, recipe=config.recipe, facts=config.facts,
    )  # fmt: skip


def _file(path: Path) -> Found:
    """A checkpoint of this project, or a state dict: bare, or under "state_dict" or "model", of a bare or DDP model."""
    content = _tensors(path)
    if "recipe" in content and "state" in content:
        return _checkpoint(path, content)
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content.get(key), dict) else content
    if not content or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        came = _few([str(key) for key in content]) or "nothing"
        raise WeightsError(f"{path} holds no state dict: expected names with tensors, got {came}")
    prefix = "module." if all(key.startswith("module.") for key in content) else ""  # DistributedDataParallel's
    return Found(str(path), {key.removeprefix(prefix): value for key, value in content.items()})


def _checkpoint(path: Path, content: dict[str, Any]) -> Found:
    try:
        recipe = Recipe.from_json(content["recipe"])
        tensors, step = content["state"]["model"], content["state"].get("clock", {}).get("step")
        parts = {
            part: {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
            for part in ("encoder.backbone.", "encoder.head.")
        }
    except (RecipeError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is not a checkpoint that this version reads: {error}") from None
    return Found(
        str(path), *parts.values(), spec=recipe.encoder, data=recipe.data, recipe=recipe.name,
        facts={} if step is None else {"steps": step},
    )  # fmt: skip


def _tensors(path: Path) -> dict[str, Any]:
    """What a file of weights holds. Nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise all sorts
        lines = str(error).splitlines() or [type(error).__name__]
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it wants to run {foreign[1]}" if foreign else lines[0]
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}); nothing in it was executed. Expected tensors alone: a "
            "safetensors file, or what torch.save(model.state_dict(), ...) writes"
        ) from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a state dict: names with tensors")
    return content


def _from_torchvision(name: str) -> Found:
    where = f"torchvision/{name}"
    try:
        weights = models.get_model_weights(name)["DEFAULT"]
        tensors = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:
        raise _unreachable(where, error) from None
    data = library_data(where)
    if name in ("googlenet", "inception_v3"):  # their weights are for this; torchvision's classes convert to it inside
        data = data.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    return Found(where, dict(tensors), spec=EncoderSpec(name=where), data=data, recipe="pretrained by torchvision")


def _from_timm(name: str, size: int | None) -> Found:
    where, config = f"timm/{name}", timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(f"timm has no pretrained weights for {name}: give a file, or one of timm.list_pretrained()")
    try:
        # with its classes: only then does timm check that every name is there
        network = timm.create_model(name, pretrained=True, **timm_size(name, size))
    except Exception as error:
        raise _unreachable(where, error) from None
    spec, data = EncoderSpec(name=where), library_data(where)
    return Found(where, network.state_dict(), spec=spec, data=data, recipe="pretrained by timm")


def _unreachable(where: str, error: Exception) -> WeightsError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return WeightsError(
        f"the pretrained weights of {where} could not be had ({reason}). Nothing was put in their place: check the "
        "connection (and HF_HUB_OFFLINE), or give a file that has them"
    )


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Of a ResNet's backbone."""
    kept = (key for key in tensors if not key.startswith("fc.") and not key.endswith("num_batches_tracked"))
    return {key: tuple(tensors[key].shape) for key in kept}


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
