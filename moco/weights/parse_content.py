"""Recognise the layout of a file: our checkpoint, an official one, another tool's, Detectron2's, or any state dict."""

from dataclasses import replace
from typing import Any

from moco.encoders.vit import recognise_vit
from moco.recipe import EncoderSpec, Recipe, RecipeError
from moco.text import first_few
from moco.weights.describe_file import describe_state_dict
from moco.weights.detectron2 import from_detectron2, is_detectron2
from moco.weights.infer_architecture import recognise_head, recognise_network
from moco.weights.loaded_weights import LoadedWeights, WeightsError
from moco.weights.official.layout import is_linear_probe, metadata_of, parse_official, queue_of
from moco.weights.other_tools import ChosenEncoder, all_tensors, choose_encoder
from moco.weights.tensor_names import Tensors, list_prefixes, under, without_wrappers

DINO_VITS = {"vit_small": "timm/vit_small_patch{}_224"}  # 6 heads, where MoCo v3's has 12; the other sizes agree


def parse_content(content: dict[str, Any], where: str, *, prefix: str = "") -> LoadedWeights:
    """The weights in a file, by our names.

    Args:
        prefix: the names of the encoder's tensors begin with this; "": found by the names.

    Raises:
        WeightsError: the file has no tensors by name, none with that prefix, or is damaged.
    """
    if is_checkpoint(content) and not prefix:
        return _parse_checkpoint(content, where)
    if not prefix and (found := parse_official(content, where)):
        return found
    tensors = all_tensors(content, where)
    if not tensors:
        came = first_few([str(key) for key in content], most=6) or "nothing"
        raise WeightsError(f"{where} holds no state dict: expected tensors by name, got {came}")
    if prefix:
        return _to_loaded(_choose_by_prefix(content, tensors, where, prefix), content, where, prefix=prefix)
    return _to_loaded(choose_encoder(tensors, where), content, where)


def is_checkpoint(content: dict[str, Any]) -> bool:
    """Whether the keys are those of a checkpoint of this project."""
    return "recipe" in content and "state" in content


def _choose_by_prefix(content: dict[str, Any], tensors: Tensors, where: str, prefix: str) -> ChosenEncoder:
    prefix = prefix if prefix.endswith(".") else prefix + "."
    chosen = under(tensors, prefix)
    if not chosen:
        raise WeightsError(f"no name in {where} begins with {prefix!r}; there are: {list_prefixes(tensors)}")
    return replace(
        choose_encoder(chosen, where, prefix), tensors=tensors, f_q={}, head={}, f_k={}, predictor={}, instead=""
    )


def _to_loaded(one: ChosenEncoder, content: dict[str, Any], where: str, *, prefix: str = "") -> LoadedWeights:
    encoder, layout = one.encoder, _layout(one, content)
    if is_detectron2(encoder):
        layout, encoder = "Detectron2", {from_detectron2(key): value for key, value in encoder.items()}
    guess, head = _guess(one, encoder), recognise_head(one.head)
    if guess is not None and not guess.name.startswith("timm/"):
        guess = guess.model_copy(update=head)
    queue = queue_of(one.tensors, where, layers=True) if one.f_k and one.head else {}
    found = LoadedWeights(
        where, encoder, one.head, guess=guess, facts=metadata_of(content), f_k=one.f_k, predictor=one.predictor,
        queue=queue, content=content, f_q=one.f_q, everything=one.tensors, prefix=prefix,
    )  # fmt: skip
    return replace(found, contents=describe_state_dict(layout, found, prefix=one.prefix, instead=one.instead))


def _layout(one: ChosenEncoder, content: dict[str, Any]) -> str:
    if one.tool:
        return f"{one.tool} (of a network and its moving average)" if one.f_q and " " not in one.tool else one.tool
    if is_linear_probe(content):
        return "linear probe of MoCo's authors"
    if one.numbered:
        return f"state dict of a ResNet of {one.numbered} with numbered parts"
    return "state dict"


def _guess(one: ChosenEncoder, encoder: Tensors) -> EncoderSpec | None:
    if one.tool == "DINO" and (vit := recognise_vit(encoder)) and vit.name in DINO_VITS and vit.position == "learned":
        return EncoderSpec(name=DINO_VITS[vit.name].format(vit.patch or 16))
    return recognise_network(encoder, small_stem=one.numbered == "lightly")


def _parse_checkpoint(content: dict[str, Any], where: str) -> LoadedWeights:
    """The weights in a checkpoint of this project."""
    try:
        recipe = Recipe.from_json(content["recipe"])
        tensors, step = content["state"]["model"], content["state"].get("clock", {}).get("step")
        backbone, head = (under(tensors, f"encoder.{part}.") for part in ("backbone", "head"))
        f_k, predictor = under(tensors, "key_encoder.module."), under(tensors, "predictor.")
        queue = under(tensors, "dictionary.")
    except (RecipeError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{where} is not a checkpoint that this version can read: {error}") from None
    return LoadedWeights(
        where, without_wrappers(backbone, where), head, spec=recipe.encoder, data=recipe.data, recipe=recipe.name,
        facts={} if step is None else {"steps": step}, f_k=f_k, predictor=predictor,
        queue=queue if "oldest" in queue else {}, content=content,
    )  # fmt: skip
