"""What a file that has been read holds: our checkpoint, an official one, another tool's, Detectron2's, any other."""

from dataclasses import replace
from typing import Any

from moco.encoders.vit import recognised_vit
from moco.recipe import EncoderSpec, Recipe, RecipeError
from moco.weights.describe import of_state_dict
from moco.weights.detectron2 import from_detectron2, is_detectron2
from moco.weights.infer_architecture import recognised, recognised_head
from moco.weights.loaded import Found, WeightsError, few
from moco.weights.names import Tensors, listed, under, unwrapped
from moco.weights.official.layout import facts_of, is_linear_probe, parse, queue_of
from moco.weights.tools import Taken, all_tensors, taken

DINO_VITS = {"vit_small": "timm/vit_small_patch{}_224"}  # 6 heads, where MoCo v3's has 12; the other sizes agree


def parse_content(content: dict[str, Any], where: str, *, prefix: str = "") -> Found:
    """What a file is of.

    Args:
        prefix: the encoder's tensors are those whose names begin so; "": as the names tell.

    Raises:
        WeightsError: it holds no tensors by name, none with that prefix, or is damaged.
    """
    if is_checkpoint(content) and not prefix:
        return _checkpoint(content, where)
    if not prefix and (found := parse(content, where)):
        return found
    tensors = all_tensors(content, where)
    if not tensors:
        came = few([str(key) for key in content]) or "nothing"
        raise WeightsError(f"{where} holds no state dict: expected names with tensors, got {came}")
    if prefix:
        return _found(_with_prefix(content, tensors, where, prefix), content, where, prefix=prefix)
    return _found(taken(tensors, where), content, where)


def is_checkpoint(content: dict[str, Any]) -> bool:
    """Whether it is one of this project's, by its keys."""
    return "recipe" in content and "state" in content


def _with_prefix(content: dict[str, Any], tensors: Tensors, where: str, prefix: str) -> Taken:
    prefix = prefix if prefix.endswith(".") else prefix + "."
    chosen = under(tensors, prefix)
    if not chosen:
        raise WeightsError(f"no name in {where} begins with {prefix!r}; there are: {listed(tensors)}")
    return replace(taken(chosen, where, prefix), tensors=tensors, f_q={}, head={}, f_k={}, predictor={}, instead="")


def _found(one: Taken, content: dict[str, Any], where: str, *, prefix: str = "") -> Found:
    encoder, layout = one.encoder, _layout(one, content)
    if is_detectron2(encoder):
        layout, encoder = "Detectron2", {from_detectron2(key): value for key, value in encoder.items()}
    guess, head = _guess(one, encoder), recognised_head(one.head)
    if guess is not None and not guess.name.startswith("timm/"):
        guess = guess.model_copy(update=head)
    queue = queue_of(one.tensors, where, layers=True) if one.f_k and one.head else {}
    found = Found(
        where, encoder, one.head, guess=guess, facts=facts_of(content), f_k=one.f_k, predictor=one.predictor,
        queue=queue, content=content, f_q=one.f_q, everything=one.tensors, prefix=prefix,
    )  # fmt: skip
    return replace(found, contents=of_state_dict(layout, found, taken=one.prefix, instead=one.instead))


def _layout(one: Taken, content: dict[str, Any]) -> str:
    if one.tool:
        return f"{one.tool} (of a network and its moving average)" if one.f_q and " " not in one.tool else one.tool
    if is_linear_probe(content):
        return "linear probe of MoCo's authors"
    if one.numbered:
        return f"state dict of a ResNet of {one.numbered}, its parts by number"
    return "state dict"


def _guess(one: Taken, encoder: Tensors) -> EncoderSpec | None:
    if one.tool == "DINO" and (vit := recognised_vit(encoder)) and vit.name in DINO_VITS and vit.position == "learned":
        return EncoderSpec(name=DINO_VITS[vit.name].format(vit.patch or 16))
    return recognised(encoder, small_stem=one.numbered == "lightly")


def _checkpoint(content: dict[str, Any], where: str) -> Found:
    """Of this project."""
    try:
        recipe = Recipe.from_json(content["recipe"])
        tensors, step = content["state"]["model"], content["state"].get("clock", {}).get("step")
        backbone, head = (under(tensors, f"encoder.{part}.") for part in ("backbone", "head"))
        f_k, predictor = under(tensors, "key_encoder.module."), under(tensors, "predictor.")
        queue = under(tensors, "dictionary.")
    except (RecipeError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{where} is not a checkpoint that this version reads: {error}") from None
    return Found(
        where, unwrapped(backbone, where), head, spec=recipe.encoder, data=recipe.data, recipe=recipe.name,
        facts={} if step is None else {"steps": step}, f_k=f_k, predictor=predictor,
        queue=queue if "oldest" in queue else {}, content=content,
    )  # fmt: skip
