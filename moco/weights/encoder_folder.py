"""Save and load encoders: `save_encoder`, `load_encoder`, and `initialize`, which --init calls. See also `export`."""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from moco import __version__
from moco.encoders import Encoder, build_headless
from moco.files import write_atomically
from moco.recipe import EncoderSpec, Recipe
from moco.weights.copy_weights import check_values_of_parts, copy_weights, suggest_prefix
from moco.weights.infer_architecture import infer_data, other_number_of_heads
from moco.weights.load import read_weights
from moco.weights.loaded_weights import Config, LoadedWeights, Weights, WeightsError
from moco.weights.model_card import model_card

__all__ = ["Config", "Weights", "WeightsError", "build_encoder", "initialize", "load_encoder", "save_encoder"]

HEADS_OF_VIT_S = (
    "A file does not show the number of heads of a ViT-S: timm/vit_small_patch16_224 has 6 (timm, DINO, DeiT), "
    "vit_small has 12 (MoCo v3). The wrong one loads too, and gives wrong features"
)


def save_encoder(
    folder: Path, encoder: Encoder, *, recipe: Recipe, facts: dict[str, Any], imported_from: str = ""
) -> None:
    """Write the files of `encoder_files` into `folder`. Each file is complete, or does not appear."""
    files = encoder_files(encoder, recipe=recipe, facts=facts, imported_from=imported_from)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, lambda file, content=content: file.write(content))


def encoder_files(
    encoder: Encoder, *, recipe: Recipe, facts: dict[str, Any], imported_from: str = ""
) -> dict[str, bytes]:
    """The contents of `model.safetensors` (only the backbone, by the library's names), `config.json` and `README.md`.

    Args:
        facts: what to record about the run, as JSON: steps, epochs, images, scores.
        imported_from: the file that the weights come from, if they are not from a run.
    """
    # cloned, because safetensors takes neither tied nor channels_last tensors
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in encoder.backbone.state_dict().items()}
    content = save(tensors, metadata={"format": "pt"})
    config = Config(
        made_by=f"momentum-contrast {__version__}", encoder=encoder.spec, num_features=encoder.num_features,
        data=recipe.data, recipe=recipe.name, facts=facts, sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    parameters = sum(parameter.numel() for parameter in encoder.backbone.parameters())
    text = model_card(config, parameters=parameters, source=recipe.source, imported_from=imported_from)
    return {
        "model.safetensors": content, "config.json": config.to_json().encode(),
        "README.md": text.encode("utf-8", "surrogateescape"),
    }  # fmt: skip


def load_encoder(
    weights: Weights,
    *,
    architecture: str | EncoderSpec | None = None,
    model: nn.Module | None = None,
    prefix: str = "",
) -> tuple[Encoder, Config]:
    """The pre-trained encoder without a head, in eval mode, on the CPU; and what is known about it.

    Args:
        weights: a run folder (its encoder, or the newest readable checkpoint of a run under way), an encoder folder, a
            folder that `moco import` made, a checkpoint, a file of MoCo's authors, of Detectron2 or with the state dict
            of a torchvision or timm network, or a name: `torchvision/NAME`, `timm/NAME` or `fair:NAME`, which are
            downloaded.
        architecture: the network, if a bare state dict does not show it (ResNets and MoCo v3's ViTs are recognised).
        model: the user's own backbone, if the weights are from one. They are copied into it.
        prefix: the prefix of the encoder's tensors, if a file of several networks does not show it.

    Raises:
        WeightsError: not there, not readable, or not the weights of that network.
    """
    return build_encoder(read_weights(weights, prefix=prefix), architecture=architecture, model=model)


def build_encoder(
    found: LoadedWeights, *, architecture: str | EncoderSpec | None = None, model: nn.Module | None = None
) -> tuple[Encoder, Config]:
    """As `load_encoder`, from weights that have been read."""
    given = EncoderSpec(name=architecture) if isinstance(architecture, str) else architecture
    spec = _choose_spec(found, given, model)
    data = found.data or infer_data(spec, found.backbone)
    with torch.random.fork_rng(devices=[]):  # the caller's random state must not change
        encoder = build_headless(spec, size=data.size, model=model)
    note = copy_weights(found, encoder.backbone, name=spec.name)
    config = Config(
        encoder=spec, num_features=encoder.num_features, data=data, recipe=found.recipe, facts=found.facts, note=note
    )
    return encoder.eval(), config


def initialize(encoder: Encoder, weights: Weights | LoadedWeights) -> str:
    """Copy `weights` into f_q: the backbone, and the head if it fits. Returns a sentence on what was copied.

    Args:
        weights: as for `load_encoder`, or what `read_weights` has returned.

    Raises:
        WeightsError: as in `load_encoder`; nothing is copied then.
    """
    found = weights if isinstance(weights, LoadedWeights) else read_weights(weights, size=encoder.size, whole=True)
    found = found.to_train_on()
    check_values_of_parts(found)
    _check_same_network(found, encoder.spec)
    note = copy_weights(found, encoder.backbone, name=encoder.spec.name)
    wanted = {key: value.shape for key, value in encoder.head.state_dict().items()}
    if not found.head:
        return f"f_q starts from {note}. The head has random weights: there is none in the file"
    if {key: value.shape for key, value in found.head.items()} != wanted:
        return f"f_q starts from {note}. The head has random weights: the file's has other layers or sizes"
    encoder.head.load_state_dict(found.head)
    return f"f_q starts from {note}, and its head too"


def _choose_spec(found: LoadedWeights, given: EncoderSpec | None, model: nn.Module | None) -> EncoderSpec:
    if found.spec is not None and given is not None and found.spec.name != given.name:
        raise WeightsError(
            f"{found.where} holds a {found.spec.name}, but --architecture is {given.name}: leave --architecture out"
        )
    if (
        given is not None
        and found.guess is not None
        and (trouble := other_number_of_heads(found.backbone, found.guess, given.name))
    ):
        raise WeightsError(f"{found.where} does not hold a {given.name}: {trouble}")
    spec = found.spec or given or (found.guess if model is None else EncoderSpec(name="custom"))
    if spec is None:
        raise WeightsError(f"{found.where} {_unknown_network(found)}")
    if spec.name == "custom" and model is None:
        raise WeightsError(
            f"{found.where} holds the weights of a module of your own, but not its code: build the module as for "
            f"training, and load them in Python: moco.load({found.where!r}, model=YourModule())"
        )
    return spec


def _unknown_network(found: LoadedWeights) -> str:
    """Why the network of a file is not known, and what to do."""
    if "blocks.0.attn.qkv.weight" in found.backbone:
        give = _how_to_name(found, "timm/vit_base_patch16_224")
        return f"holds a ViT, but does not show which: {give}. {HEADS_OF_VIT_S}"
    return (
        f"does not show which network its {len(found.backbone)} tensors belong to{suggest_prefix(found)}. To name the "
        f"network, {_how_to_name(found, 'timm/convnext_tiny')}"
    )


def _how_to_name(found: LoadedWeights, example: str) -> str:
    """How to say which network it is; by the name that the file itself gives, if any."""
    said = found.facts.get("arch")
    if isinstance(said, str) and re.fullmatch(r"[\w.]{1,80}", said):
        return f"give --architecture; the file says {said}, which in timm is timm/{said} (architecture= in Python)"
    return f"give --architecture, such as {example} (architecture= in Python)"


def _check_same_network(found: LoadedWeights, spec: EncoderSpec) -> None:
    """Refuse weights of another network with the same names and shapes: another stem, or number of heads."""
    if "custom" in (spec.name, found.spec and found.spec.name):
        return
    if found.spec is None:
        if trouble := other_number_of_heads(found.backbone, found.guess, spec.name):
            raise WeightsError(f"f_q is a {spec.name}, and {found.where} must not be loaded into it: {trouble}")
        return
    theirs, ours = ((one.name.rpartition("/")[2].partition(".")[0], one.stem) for one in (found.spec, spec))
    if theirs != ours:
        raise WeightsError(
            f"f_q is a {spec.name} (stem {spec.stem}), {found.where} holds a {found.spec.name} (stem "
            f"{found.spec.stem}): expected the same network. Set encoder.name and encoder.stem, or give other weights"
        )
