"""Encoders to files and back: `save_encoder`, `load_encoder`, and `initialize`, which is --init. See also `export`."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from moco import __version__
from moco.encoders import Encoder, build_headless
from moco.files import write_atomically, write_text
from moco.recipe import EncoderSpec, Recipe
from moco.weights.copy_weights import check_values_of_parts, copy_weights, suggest_prefix
from moco.weights.infer_architecture import infer_data, other_number_of_heads
from moco.weights.load import read_weights
from moco.weights.loaded_weights import Config, LoadedWeights, Weights, WeightsError
from moco.weights.model_card import model_card

__all__ = ["Config", "Weights", "WeightsError", "build_encoder", "initialize", "load_encoder", "save_encoder"]

HEADS_OF_VIT_S = (
    ". The heads of a ViT-S cannot be seen in a file: timm's and DINO's, timm/vit_small_patch16_224, has 6, that of "
    "MoCo v3, vit_small, has 12, and each loads as the other and then gives wrong features"
)


def save_encoder(
    folder: Path, encoder: Encoder, *, recipe: Recipe, facts: dict[str, Any], imported_from: str = ""
) -> None:
    """Write `model.safetensors` (the backbone alone, by the library's names), `config.json` and `README.md`.

    Each file appears whole or not at all.

    Args:
        facts: what is worth knowing of the run, as JSON: steps, epochs, images, scores.
        imported_from: the file that the weights are from, when they are not of a run.
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
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "model.safetensors", lambda file: file.write(content))
    write_text(folder / "config.json", config.to_json())
    write_text(folder / "README.md", text)


def load_encoder(
    weights: Weights,
    *,
    architecture: str | EncoderSpec | None = None,
    model: nn.Module | None = None,
    prefix: str = "",
) -> tuple[Encoder, Config]:
    """The pre-trained encoder without a head, in eval mode, on the CPU; and what is known of it.

    Args:
        weights: a run folder (its encoder, or the newest readable checkpoint of a run under way), an encoder folder, a
            folder that `moco import` made, a checkpoint, a file of MoCo's authors, of Detectron2 or with the state dict
            of a torchvision or timm network, or a name: `torchvision/NAME`, `timm/NAME` or `fair:NAME`, which are
            downloaded.
        architecture: what the weights are of, when a bare state dict does not say (ResNets and MoCo v3's ViTs are
            recognised).
        model: the user's own backbone, when the weights are of one. They are copied into it.
        prefix: what the names of the encoder's tensors begin with, in a file of several networks that does not tell.

    Raises:
        WeightsError: not there, not readable, or not the weights of that network.
    """
    return build_encoder(read_weights(weights, prefix=prefix), architecture=architecture, model=model)


def build_encoder(
    found: LoadedWeights, *, architecture: str | EncoderSpec | None = None, model: nn.Module | None = None
) -> tuple[Encoder, Config]:
    """As `load_encoder`, from weights that have been read."""
    said = EncoderSpec(name=architecture) if isinstance(architecture, str) else architecture
    spec = _choose_spec(found, said, model)
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
        weights: as for `load_encoder`, or what `find` has read.

    Raises:
        WeightsError: as there; nothing is copied then.
    """
    found = weights if isinstance(weights, LoadedWeights) else read_weights(weights, size=encoder.size, whole=True)
    found = found.to_train_on()
    check_values_of_parts(found)
    _check_same_network(found, encoder.spec)
    note = copy_weights(found, encoder.backbone, name=encoder.spec.name)
    wanted = {key: value.shape for key, value in encoder.head.state_dict().items()}
    if not found.head:
        return f"f_q starts from {note}. The head starts at random: there is none in the file"
    if {key: value.shape for key, value in found.head.items()} != wanted:
        return f"f_q starts from {note}. The head starts at random: the file's has other layers or sizes"
    encoder.head.load_state_dict(found.head)
    return f"f_q starts from {note}, and its head too"


def _choose_spec(found: LoadedWeights, said: EncoderSpec | None, model: nn.Module | None) -> EncoderSpec:
    if found.spec is not None and said is not None and found.spec.name != said.name:
        raise WeightsError(f"{found.where} is of {found.spec.name}, and architecture says {said.name}: leave it out")
    if (
        said is not None
        and found.guess is not None
        and (trouble := other_number_of_heads(found.backbone, found.guess, said.name))
    ):
        raise WeightsError(f"{found.where} is not of {said.name}: {trouble}")
    spec = found.spec or said or (found.guess if model is None else EncoderSpec(name="custom"))
    if spec is None:
        raise WeightsError(
            f"{found.where} does not say what network its {len(found.backbone)} tensors are of{suggest_prefix(found)}. "
            "To name the network, give --architecture, such as timm/convnext_tiny (architecture= in Python)"
            + HEADS_OF_VIT_S
            * any("blocks.0." in key for key in found.backbone)
        )
    if spec.name == "custom" and model is None:
        raise WeightsError(
            f"{found.where} holds the weights of a module of your own, and not the module: give model=, the "
            f"module made as before the training, in Python: moco.load({found.where!r}, model=YourModule())"
        )
    return spec


def _check_same_network(found: LoadedWeights, spec: EncoderSpec) -> None:
    """Refuse networks that names and shapes cannot tell apart: another stem, other heads, equal layers."""
    if "custom" in (spec.name, found.spec and found.spec.name):
        return
    if found.spec is None:
        if trouble := other_number_of_heads(found.backbone, found.guess, spec.name):
            raise WeightsError(f"f_q is a {spec.name}, which {found.where} must not be loaded into: {trouble}")
        return
    theirs, ours = ((one.name.rpartition("/")[2].partition(".")[0], one.stem) for one in (found.spec, spec))
    if theirs != ours:
        raise WeightsError(
            f"f_q is a {spec.name} (stem {spec.stem}), {found.where} is of {found.spec.name} (stem {found.spec.stem}): "
            "expected the same network. Set encoder.name and encoder.stem, or give other weights"
        )
