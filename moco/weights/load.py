"""Read weights from a run, an encoder folder, an imported folder, a file of any format, or by a published name.

Nothing in a file is executed. Weights that cannot be read are an error; random weights never take their place.
"""

import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from moco.encoders.torchvision_timm import is_timm
from moco.recipe import DataSpec, EncoderSpec, Recipe, RecipeError, diff
from moco.text import message_of
from moco.weights.errors import no_encoder_in, no_such_weights
from moco.weights.import_folder import REST, join_content, read_chosen_prefix
from moco.weights.infer_architecture import recognise_network
from moco.weights.loaded_weights import Config, LoadedWeights, Weights, WeightsError, hash_config
from moco.weights.official.fetch import fetch
from moco.weights.official.released import FAIR_PREFIX, find_released
from moco.weights.own_files import check_network_is_of_run, find_step_beyond_end, read_run_id
from moco.weights.parse_content import is_checkpoint, parse_content
from moco.weights.pretrained import read_pretrained
from moco.weights.read_checkpoint import (
    CheckpointError,
    UnreadableError,
    check_intact,
    entries,
    find_missing,
    find_other_run,
    newest_intact,
    step_in,
)
from moco.weights.tensors import read_tensors
from moco.weights.tuned_folder import refuse_tuned

__all__ = ["Config", "LoadedWeights", "Weights", "WeightsError", "read_weights"]


def read_weights(weights: Weights, *, size: int | None = None, whole: bool = False, prefix: str = "") -> LoadedWeights:
    """Read `weights`: a folder or file of this project, a file of another tool, or the name of released weights.

    Args:
        size: [pixels] of the images that a pretrained network is used on, for timm's networks made for one size.
        whole: read not only f_q's backbone, but also head, f_k, predictor and queue if there are any. Of a run, this
            reads the newest intact checkpoint instead of the encoder.
        prefix: the names of the encoder's tensors in the file begin with this; "": found by the names.

    Raises:
        WeightsError: there are no such weights, or they cannot be read or downloaded.
    """
    path = Path(weights)
    if prefix and not (path.is_file() or str(weights).startswith(FAIR_PREFIX)):
        raise WeightsError(
            f"prefix={prefix!r} is for a file with several networks, and {weights} is not one: leave the prefix out"
        )
    if path.is_dir():
        refuse_tuned(path)
        return _read_folder(path, whole)
    if path.is_file():
        beside = path.parent / "config.json"
        if path.name == "model.safetensors" and beside.is_file():
            refuse_tuned(path.parent)
            return _read_encoder_folder(path.parent)
        return _read_file(path, prefix)
    if str(weights).startswith(FAIR_PREFIX):
        one = find_released(str(weights))
        path = fetch(one)
        found = parse_content(read_tensors(path), str(path), prefix=prefix)
        return replace(found, where=str(weights), facts=found.facts | {"licence": one.licence})
    if found := read_pretrained(str(weights), size):
        return found
    raise no_such_weights(weights)


def _read_file(path: Path, prefix: str) -> LoadedWeights:
    content = read_tensors(path)
    if is_checkpoint(content):
        try:
            check_intact(path)
        except CheckpointError as error:
            raise WeightsError(str(error)) from None
    return parse_content(content, str(path), prefix=prefix)


def _read_folder(path: Path, whole: bool) -> LoadedWeights:
    """An encoder folder, an imported one, or a run: its encoder/, or else its newest undamaged checkpoint."""
    encoder = next((one for one in (path / "encoder", path) if _is_encoder(one)), None)
    if encoder is not None and whole and (path / REST).is_file():
        content, config = join_content(path), _read_config(encoder)
        _check_intact(encoder, config)
        found = parse_content(content, str(path), prefix=read_chosen_prefix(path))
        return replace(found, spec=config.encoder, data=config.data, recipe=config.recipe, facts=config.facts)
    if encoder is None or whole:
        found = _read_newest_checkpoint(path, instead=encoder)
        if found is not None:
            return found
    if encoder is not None:
        if encoder != path:
            check_network_is_of_run(path, encoder.name)
        return _read_encoder_folder(encoder)
    raise no_encoder_in(path)


def _read_newest_checkpoint(run: Path, *, instead: Path | None) -> LoadedWeights | None:
    """The newest undamaged checkpoint of a run; None: there are no checkpoints.

    Args:
        instead: the encoder folder to use, with a warning, if all of them are damaged.

    Raises:
        WeightsError: all of them are damaged, or the newest has another recipe than the run, or is of another version.
    """
    content: dict[str, Any] = {}
    run_id = read_run_id(run)

    def accepts(path: Path) -> str | None:
        nonlocal content
        if reason := find_step_beyond_end(run, path):
            return reason
        try:
            content = read_tensors(path)
        except WeightsError as error:
            return f"unreadable ({error})"
        if reason := find_missing(content, step_in(path.name)):
            return reason
        _check_is_of_run(content, run, path)
        return find_other_run(content, run_id)

    try:
        file = newest_intact(run / "checkpoints", accepts=accepts)
    except UnreadableError as error:
        raise WeightsError(str(error)) from None
    except CheckpointError as error:
        if instead is None:
            raise WeightsError(f"no checkpoint of {run} can be read: {error}") from None
        warnings.warn(f"{error}. Using {instead} instead, which has only the backbone of f_q", stacklevel=2)
        return None
    if file is None:
        return None
    found, step = parse_content(content, str(file)), step_in(file.name)
    newer = sum(entry["step"] > (step or 0) for entry in entries(file.parent))
    return replace(found, where=found.where + (f" ({newer} newer cannot be used)" if newer else ""))


def _check_is_of_run(content: dict[str, Any], run: Path, file: Path) -> None:
    """Raise WeightsError if the checkpoint has another recipe than the run folder."""
    if not (run / "recipe.json").is_file():
        return
    try:
        changes = diff(Recipe.read(run / "recipe.json"), Recipe.from_json(content["recipe"]))
    except RecipeError as error:
        raise WeightsError(f"{run / 'recipe.json'} and {file} cannot be compared: {error}") from None
    if changes:
        raise WeightsError(
            f"{file} has another recipe than {run / 'recipe.json'} ({'; '.join(changes)}): restore the run's own "
            "checkpoint or recipe.json from a backup, or give the path of the checkpoint itself"
        )


def _is_encoder(path: Path) -> bool:
    return (path / "model.safetensors").is_file() and (path / "config.json").is_file()


def _read_encoder_folder(path: Path) -> LoadedWeights:
    """A folder that `save_encoder` or timm wrote."""
    tensors = read_tensors(path / "model.safetensors")
    if theirs := _read_timm_config(path / "config.json"):
        return _read_timm_folder(path, tensors, theirs)
    config = _read_config(path)
    _check_intact(path, config)
    return LoadedWeights(
        str(path), tensors, spec=config.encoder, data=config.data, recipe=config.recipe, facts=config.facts
    )


def _check_intact(path: Path, config: Config) -> None:
    """Raise WeightsError if model.safetensors does not have the SHA-256 in config.json."""
    with (path / "model.safetensors").open("rb") as file:
        intact = config.sha256 in ("", hashlib.file_digest(file, "sha256").hexdigest())
    if not intact:
        raise WeightsError(
            f"{path / 'model.safetensors'} is damaged or was changed (its SHA-256 is not that in config.json): restore "
            "it from a backup, or move this folder away to use the run's checkpoints. If you changed it on purpose, "
            "remove sha256 and config_sha256 from config.json"
        )


def _read_timm_config(file: Path) -> dict[str, Any] | None:
    """config.json of a folder that timm wrote; None: timm did not write this folder."""
    try:
        config = json.loads(file.read_bytes())
        return config if {"architecture", "pretrained_cfg"} <= config.keys() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _read_timm_folder(path: Path, tensors: dict[str, Any], config: dict[str, Any]) -> LoadedWeights:
    """The weights in a folder that timm wrote; its config.json has the number of heads. Raises WeightsError."""
    try:
        return _parse_timm_folder(path, tensors, config)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path / 'config.json'} is not a valid config.json of timm: {reason}") from None


def _parse_timm_folder(path: Path, tensors: dict[str, Any], config: dict[str, Any]) -> LoadedWeights:
    name, look, found = config["architecture"], config["pretrained_cfg"], parse_content(tensors, str(path))
    ours = found.guess or recognise_network(tensors, of_moco_v3=config.get("model_args", {}).get("num_heads") == 12)
    size, crop = look.get("input_size", [3, 224, 224])[-1], look.get("crop_pct", 224 / 256)
    data = {"size": size, "eval_resize": round(size / crop)} | {
        key: look[key] for key in ("mean", "std") if key in look
    }
    spec = ours or (EncoderSpec(name=f"timm/{name}") if is_timm(name) else None)
    return replace(found, spec=spec, guess=None, data=DataSpec.model_validate(data), recipe="timm's folder")


def _read_config(path: Path) -> Config:
    try:
        content = (path / "config.json").read_bytes()
        config = Config.model_validate_json(content)
    except (OSError, ValueError) as error:
        reason = " ".join(message_of(error).split())
        raise WeightsError(
            f"{path / 'config.json'} is not a valid config.json of an encoder (format 1): {reason}"
        ) from None
    if config.config_sha256 not in ("", hash_config(json.loads(content))):
        raise WeightsError(
            f"{path / 'config.json'} is damaged or was changed (its checksum, config_sha256, differs): restore it from "
            "a backup. If you changed it on purpose, remove config_sha256 from it"
        )
    return config
