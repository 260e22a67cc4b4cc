"""Export a checkpoint as MoCo's authors write it, for their scripts to resume from or to convert."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from moco.atomic_output import stage_paths
from moco.encoders import Encoder
from moco.files import read_json, write_atomically
from moco.recipe import EncoderSpec, Recipe
from moco.text import plural
from moco.weights.encoder_folder import build_encoder
from moco.weights.export.files import plain, verify
from moco.weights.export.optimizer import reference_optimizer
from moco.weights.library_equivalent import library_equivalent
from moco.weights.load import read_weights
from moco.weights.loaded_weights import Config, LoadedWeights, Weights, WeightsError
from moco.weights.official.layout import (
    DDP,
    F_K_UPDATED,
    compose_official,
    find_state,
    is_linear_probe,
    is_vit,
    parse_official,
    recognise_names,
)
from moco.weights.tensors import read_tensors, same_tensors


def to_fair(weights: Weights, out: Path, *, architecture: str | EncoderSpec | None, overwrite: bool) -> str:
    """Write a run with f_q, f_k, queue or predictor, optimizer and epoch; an official file with unchanged content."""
    found = read_weights(weights, whole=True).to_train_on()
    state = find_state(found.content)
    official = state is not None and (recognise_names(state) is not None or is_linear_probe(found.content))
    encoder, config = build_encoder(found, architecture=architecture)
    if official:
        content = _wrap_in_ddp(found.content)
    else:
        backbone = {key: found.backbone.get(key, value) for key, value in encoder.backbone.state_dict().items()}
        content = _reference_content(replace(found, backbone=backbone, spec=config.encoder), weights)
    with stage_paths([out], overwrite=overwrite) as (aside,):
        write_atomically(aside, lambda file: torch.save(content, file))
        back = read_tensors(aside)
        if not same_tensors(back, content):
            raise WeightsError(f"{out} does not contain what was written: the disk or moco is at fault")
    read = parse_official(back, str(out))
    if read is not None and read.guess is None:
        f_q = f"{encoder.spec.name}, {plural(len(read.backbone), 'tensor')}"
        read = replace(read, contents=read.contents | {"f_q": f_q})
    lines = [f"{out} holds {'the content of the file' if read is None else read.summary}."]
    return "\n".join([*lines, _compare_in_reference_network(config, encoder)])


def _wrap_in_ddp(content: dict[str, Any]) -> dict[str, Any]:
    """Add what the reference scripts expect, if an official file lacks it: "state_dict", and names with "module."."""
    wrapped = isinstance(content.get("state_dict"), dict)
    state = find_state(content) or {}
    return (content if wrapped else {}) | {"state_dict": {DDP + key: value for key, value in state.items()}}


def _reference_content(found: LoadedWeights, weights: Weights) -> dict[str, Any]:
    """The checkpoint that the reference script would have written, with all parts that are known."""
    assert found.spec is not None
    v3 = not found.queue and (
        bool(found.predictor) or found.spec.head.startswith("projector") or is_vit(found.backbone)
    )
    epoch = _epoch(found, weights)
    content: dict[str, Any] = {} if epoch is None else {"epoch": epoch}
    content |= {"arch": found.spec.name.rpartition("/")[2], "state_dict": plain(compose_official(found, v3=v3))}
    if found.f_k:
        content[F_K_UPDATED] = True
    optimizer = reference_optimizer(found)
    if optimizer is not None:
        content["optimizer"] = optimizer
    if v3 and optimizer is not None:  # in fp32 we have none: write the state that theirs starts with
        content["scaler"] = found.content["state"].get("scaler") or torch.amp.GradScaler("cpu").state_dict()
    return content


def _epoch(found: LoadedWeights, weights: Weights) -> int | None:
    """Complete epochs, from the steps and the number of images in provenance.json; None if that is not known."""
    if "steps" not in found.facts or not found.content:
        return found.facts.get("epochs")
    path = Path(weights)
    run = path if path.is_dir() else path.parent.parent
    try:
        images = read_json(run / "provenance.json")[0]["images"]
        recipe = Recipe.from_json(found.content["recipe"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found.facts["steps"] // (images // recipe.optim.batch_size)


def _compare_in_reference_network(config: Config, encoder: Encoder) -> str:
    """Load f_q into the network that the reference scripts build. Returns a sentence on how its features differ."""
    library = "timm" if is_vit(encoder.backbone.state_dict()) else "torchvision"
    try:
        call = library_equivalent(config.encoder, library, config.data.size)
    except WeightsError as error:
        return f"The authors' scripts cannot build this network ({error})."
    apart, _ = verify(plain(encoder.backbone.state_dict()), call, encoder, size=config.data.size)
    return f"Their network is {call}. Its features of 2 random images, with f_q loaded, differ by at most {apart:.1g}."
