"""Weights in: a run, an encoder folder, an imported one, a file of any of our formats or a name -> tensors by name.

Nothing in a file is executed. What cannot be read is an error, never random weights in its place.
"""

import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from moco.encoders.library import classifier, is_timm
from moco.recipe import DataSpec, EncoderSpec, Recipe, RecipeError
from moco.weights.checkpoints import CheckpointError, check, entries, newest, step_in
from moco.weights.describe import of_state_dict
from moco.weights.detectron2 import from_detectron2, is_detectron2
from moco.weights.errors import no_such_weights
from moco.weights.import_folder import REST, joined
from moco.weights.infer_architecture import recognised
from moco.weights.loaded import Config, Found, Weights, WeightsError, few
from moco.weights.official.fetch import fetch
from moco.weights.official.layout import is_linear_probe, parse, state_in, under
from moco.weights.official.released import PREFIX, released
from moco.weights.pretrained import pretrained
from moco.weights.tensors import read_tensors

__all__ = ["Config", "Found", "Weights", "WeightsError", "find", "put"]


def find(weights: Weights, *, size: int | None = None, whole: bool = False) -> Found:
    """Read `weights`: a folder or file of this project, somebody else's file, or the name of released weights.

    Args:
        size: [pixels] of the images that a pretrained network is wanted for, where it can be had for several.
        whole: not f_q's backbone alone, but with the head, f_k, the predictor and the queue where they are there: of a
            run, its newest checkpoint that is as it was written, instead of its encoder.

    Raises:
        WeightsError: there is no such thing, it cannot be read, or it cannot be had.
    """
    path = Path(weights)
    if path.is_dir():
        return _folder(path, whole)
    if path.is_file():
        beside = path.parent / "config.json"
        if path.name == "model.safetensors" and beside.exists():
            return _encoder_folder(path.parent)
        return _file(path, read_tensors(path))
    if str(weights).startswith(PREFIX):
        one = released(str(weights))
        found = _file(path := fetch(one), read_tensors(path))
        return replace(found, where=str(weights), facts=found.facts | {"licence": one.licence})
    if found := pretrained(str(weights), size):
        return found
    raise no_such_weights(weights)


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
        lines = "; ".join(f"{what}: {few(keys)}" for what, keys in troubles.items() if keys)
        raise WeightsError(f"{found.where} holds other weights than those of {name} without its classifier ({lines})")
    kept = {key: value for key, value in found.backbone.items() if key in wanted}
    network.load_state_dict(kept, strict=False)  # files from before 2018 lack num_batches_tracked, which nothing uses
    said = f" ({found.said})" if found.contents else ""
    without = f"; its classifier ({few(dropped)}) was left out" if dropped else ""
    return f"{len(kept)} tensors of {name} read from {found.where}{said}{without}"


def _folder(path: Path, whole: bool) -> Found:
    """An encoder folder, an imported one, or a run: its encoder/, or else its newest undamaged checkpoint."""
    encoder = next((one for one in (path / "encoder", path) if _is_encoder(one)), None)
    if encoder is not None and whole and (path / REST).exists():
        found = _file(path, joined(path))
        config = _config(encoder)
        return replace(found, spec=config.encoder, data=config.data, recipe=config.recipe, facts=config.facts)
    if encoder is None or whole:
        found = _newest_checkpoint(path, instead=encoder)
        if found is not None:
            return found
    if encoder is not None:
        return _encoder_folder(encoder)
    raise WeightsError(
        f"{path} is neither a run (encoder/, checkpoints/step_*.pt) nor an encoder (model.safetensors, config.json)"
    )


def _newest_checkpoint(run: Path, *, instead: Path | None) -> Found | None:
    """The newest checkpoint of a run that is as it was written; None: there never was one.

    Args:
        instead: what can be taken, with a warning, where all of them are damaged.

    Raises:
        WeightsError: all of them are damaged, or it is of another version.
    """
    try:
        file = newest(run / "checkpoints")
    except CheckpointError as error:
        if instead is None:
            raise WeightsError(f"no checkpoint of {run} can be read: {error}") from None
        warnings.warn(f"{error}. Taking {instead}, which has f_q's backbone alone", stacklevel=2)
        return None
    if file is None:
        return None
    found, step = _checkpoint(file, read_tensors(file)), step_in(file.name)
    newer = sum(entry["step"] > (step or 0) for entry in entries(file.parent))
    return replace(found, where=found.where + (f" ({newer} newer could not be read)" if newer else ""))


def _is_encoder(path: Path) -> bool:
    return (path / "model.safetensors").exists() and (path / "config.json").exists()


def _encoder_folder(path: Path) -> Found:
    """What `save_encoder` or timm wrote."""
    tensors = read_tensors(path / "model.safetensors")
    if theirs := _timms_config(path / "config.json"):
        return _timms_folder(path, tensors, theirs)
    config = _config(path)
    with (path / "model.safetensors").open("rb") as file:
        intact = config.sha256 in ("", hashlib.file_digest(file, "sha256").hexdigest())
    if not intact:
        raise WeightsError(
            f"{path / 'model.safetensors'} is not what was written (config.json beside it has another SHA-256): put it "
            "back from a copy, or take the encoder from the run's checkpoints (move this folder away). If you changed "
            "it on purpose, remove sha256 from config.json"
        )
    return Found(str(path), tensors, spec=config.encoder, data=config.data, recipe=config.recipe, facts=config.facts)


def _timms_config(file: Path) -> dict[str, Any] | None:
    """What config.json says in a folder as timm has them on the hub; None: it is none of those."""
    try:
        config = json.loads(file.read_bytes())
        return config if {"architecture", "pretrained_cfg"} <= config.keys() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _timms_folder(path: Path, tensors: dict[str, Any], config: dict[str, Any]) -> Found:
    """A folder that timm loads: here the number of heads is told. Raises WeightsError."""
    try:
        return _as_timm_says(path, tensors, config)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path / 'config.json'} is not one that timm writes: {reason}") from None


def _as_timm_says(path: Path, tensors: dict[str, Any], config: dict[str, Any]) -> Found:
    name, look, found = config["architecture"], config["pretrained_cfg"], _file(path, tensors)
    ours = found.guess or recognised(tensors, of_moco_v3=config.get("model_args", {}).get("num_heads") == 12)
    size, crop = look.get("input_size", [3, 224, 224])[-1], look.get("crop_pct", 224 / 256)
    data = {"size": size, "eval_resize": round(size / crop)} | {
        key: look[key] for key in ("mean", "std") if key in look
    }
    spec = ours or (EncoderSpec(name=f"timm/{name}") if is_timm(name) else None)
    return replace(found, spec=spec, guess=None, data=DataSpec.model_validate(data), recipe="timm's folder")


def _config(path: Path) -> Config:
    try:
        return Config.model_validate_json((path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path / 'config.json'} is not that of an encoder, format 1: {reason}") from None


def _file(path: Path, content: dict[str, Any]) -> Found:
    """What a file is of: our checkpoint, an official one, Detectron2's, or any other state dict."""
    if "recipe" in content and "state" in content:
        try:
            if path.is_file():  # else it was imported, and checked then
                check(path)
        except CheckpointError as error:
            raise WeightsError(str(error)) from None
        return _checkpoint(path, content)
    if found := parse(content, str(path)):
        return found
    state = state_in(content)
    if state is None:
        came = few([str(key) for key in content]) or "nothing"
        raise WeightsError(f"{path} holds no state dict: expected names with tensors, got {came}")
    layout = "linear probe of MoCo's authors" if is_linear_probe(content) else "state dict"
    if is_detectron2(state):
        layout, state = "Detectron2", {from_detectron2(key): value for key, value in state.items()}
    facts = {key: content[key] for key in ("epoch", "arch") if isinstance(content.get(key), int | str)}
    found = Found(str(path), state, guess=recognised(state), facts=facts, content=content)
    return replace(found, contents=of_state_dict(layout, found))


def _checkpoint(path: Path, content: dict[str, Any]) -> Found:
    """Of this project."""
    try:
        recipe = Recipe.from_json(content["recipe"])
        tensors, step = content["state"]["model"], content["state"].get("clock", {}).get("step")
        backbone, head = under(tensors, "encoder.backbone."), under(tensors, "encoder.head.")
        f_k, predictor = under(tensors, "key_encoder.module."), under(tensors, "predictor.")
        queue = under(tensors, "dictionary.")
    except (RecipeError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is not a checkpoint that this version reads: {error}") from None
    return Found(
        str(path), backbone, head, spec=recipe.encoder, data=recipe.data, recipe=recipe.name,
        facts={} if step is None else {"steps": step}, f_k=f_k, predictor=predictor,
        queue=queue if "oldest" in queue else {}, content=content,
    )  # fmt: skip
