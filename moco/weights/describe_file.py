"""Describe a file of weights for people: `moco import` prints this and writes it to contents.json."""

from typing import Any

from torch import Tensor

from moco.text import first_few
from moco.weights.infer_architecture import recognise_head
from moco.weights.loaded_weights import LoadedWeights
from moco.weights.tensor_names import count_by_prefix

CLASSIFIERS = ("fc.weight", "head.weight", "head.fc.weight")


def describe_official(layout: str, found: LoadedWeights, others: list[str]) -> dict[str, Any]:
    """Describe a checkpoint of MoCo's authors.

    Args:
        others: names of tensors in the file that belong to no part of the method.
    """
    words = {"layout": layout, "f_q": _describe_network(found, found.backbone), "head": _describe_head(found)}
    words["f_k"] = f"{len(found.f_k)} tensors" if found.f_k else "none"
    if found.queue or "v3" not in layout:
        words["queue"] = _describe_queue(found)
    if "v3" in layout:
        words["predictor"] = f"{len(found.predictor)} tensors" if found.predictor else "none"
    return words | _describe_rest(found) | ({"not known": first_few(others, most=6)} if others else {})


def describe_state_dict(layout: str, found: LoadedWeights, *, prefix: str = "", instead: str = "") -> dict[str, Any]:
    """Describe any other file: a network, with or without a linear classifier.

    Args:
        prefix: the prefix of the network that became the encoder.
        instead: the prefix of the trained network, if its moving average became the encoder.
    """
    words = {"layout": layout, "network": _describe_network(found, found.backbone)}
    if prefix:
        words["encoder tensors"] = f"{prefix}*"
    if instead:
        words["encoder tensors"] += f", the moving average of {instead}* (training continues from both)"
    if found.f_k:
        words |= {"head": _describe_head(found), "queue": _describe_queue(found)}
    if prefix:
        others = [key for key in found.everything if not key.startswith((prefix, instead or prefix))]
    else:
        is_part = found.backbone.keys() <= found.everything.keys()
        others = [key for key in found.everything if key not in found.backbone] if is_part else []
    if others:
        words["other tensors"] = count_by_prefix({key: found.everything[key] for key in others})
    heads = [found.backbone[key] for key in CLASSIFIERS if key in found.backbone]
    classes = [one.shape[0] for one in heads if one.ndim]
    if classes:
        words["linear classifier"] = f"of {classes[0]:,} classes"
    return words | _describe_rest(found)


def _describe_network(found: LoadedWeights, tensors: dict[str, Tensor]) -> str:
    if found.guess is None:
        return f"{len(tensors)} tensors of an unknown network"
    width = "" if found.guess.width == 1 else f" of width {found.guess.width:g}"
    return f"{found.guess.name}{width}, {len(tensors)} tensors"


def _describe_head(found: LoadedWeights) -> str:
    settings = recognise_head(found.head)
    if not settings:
        return f"{len(found.head)} tensors of an unknown kind" if found.head else "none"
    return f"{settings['head']} to {settings['dim']} dimensions"


def _describe_queue(found: LoadedWeights) -> str:
    return "{:,} keys of {} dimensions".format(*found.queue["keys"].shape) if found.queue else "none"


def _describe_rest(found: LoadedWeights) -> dict[str, Any]:
    """Facts in the file other than tensors."""
    words: dict[str, Any] = {"optimizer": "its state" if isinstance(found.content.get("optimizer"), dict) else "none"}
    return words | {key: found.facts[key] for key in ("epoch", "arch") if key in found.facts}
