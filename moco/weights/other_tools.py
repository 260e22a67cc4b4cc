"""Checkpoints of other tools: choose the network that becomes the encoder, and find its head, f_k and predictor.

Some files have a network twice: as trained, and as its moving average. The average becomes the encoder: the teacher
rather than the student, the momentum or EMA network rather than the trained one. Training continues from both: the
trained network is f_q, the average is f_k.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from moco.weights.numbered_resnet import from_numbered
from moco.weights.tensor_names import Tensors, state_dicts, under, without_wrappers


class Tool(NamedTuple):
    """The prefixes that a tool uses for the parts of its model; "": it has no such part."""

    name: str
    trained: str
    average: str
    head: str = ""  # of the trained network; average_head: of its average
    average_head: str = ""
    predictor: str = ""


TOOLS = (
    Tool("lightly", "backbone.", "backbone_momentum.", "projection_head.layers.", "projection_head_momentum.layers.",
         "prediction_head.layers."),
    Tool("mmpretrain", "backbone.", "encoder_k.module.0.", "neck.mlp.", "encoder_k.module.1.mlp."),
    Tool("mmpretrain", "backbone.", "encoder_k.0.", "neck.mlp.", "encoder_k.1.mlp."),
    Tool("mmpretrain", "backbone.", "momentum_encoder.module.0."),
    Tool("mmpretrain", "backbone.", "target_net.module.0."),
    Tool("mmselfsup", "encoder_q.0.", "encoder_k.0.", "encoder_q.1.mlp.", "encoder_k.1.mlp."),
    Tool("lightly", "student_backbone.", "teacher_backbone."),
    Tool("solo-learn", "backbone.", "momentum_backbone.", "projector.", "momentum_projector.", "predictor."),
    Tool("DINO", "student.backbone.", "teacher.backbone."),
    Tool("a student and its teacher", "student.", "teacher."),
    Tool("an encoder and its momentum encoder", "encoder.", "momentum_encoder.", "projector.", "momentum_projector.",
         "predictor."),
    Tool("an encoder and its momentum encoder", "encoder.", "encoder_momentum."),
    Tool("a network and its target", "online_encoder.", "target_encoder."),
    Tool("a network and its target", "online_network.", "target_network."),
    Tool("a network and its moving average", "model.", "ema_model."),
    *(Tool("a network and its moving average", f"{trained}.", f"{average}.")
      for average in ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
      for trained in ("model", "state_dict", "model_state_dict", "model_state", "module", "net", "network")),
)  # fmt: skip
# Keys under which files have state dicts, in the order of preference.
AVERAGES = ("teacher", "model_ema", "state_dict_ema", "ema_state_dict", "ema", "momentum_encoder", "target_encoder")
TRAINED = ("state_dict", "model", "model_state_dict", "model_state", "student", "module", "net", "network", "encoder",
           "backbone", "trunk", "weights")  # fmt: skip
# Prefixes of a single network. No network of torchvision or timm has those in SURE. Those in LIKELY count only if all
# other names are usual parts of a training program, BESIDE (torchvision's ViT has an "encoder." of its own).
SURE = ("backbone.", "student_backbone.", "student.", "_feature_blocks.")
LIKELY = ("encoder.", "model.", "net.", "network.", "learner.", "resnet.", "vit.", "trunk.", "feature_extractor.",
          "base_model.", "0.")  # fmt: skip
BESIDE = re.compile(
    r"(projector|proj(ection)?_?head|predictor|prediction_head|heads?|fc|classifier|linear|queue|criterion|loss|"
    r"prototypes|neck|decoder|momentum|teacher|student|target|online|ema|metrics?|train|val|valid|test|knn|center|"
    r"temperature|logit_scale|contrast|augment|normali[sz]e)[a-z0-9_]*(\.|$)"
)
# Parts of a training program beside a bare network. No network of torchvision or timm has these names.
PARTS_BESIDE = re.compile(
    r"(projection_head|projector|prediction_head|predictor|prototypes|queue|queue_ptr|mask_token|decoder_[a-z_]+)(\.|$)"
)
NETWORK = {  # names that show that a state dict is a bare network
    "conv1.weight", "patch_embed.proj.weight", "class_token", "cls_token", "stem.conv1.weight", "conv_proj.weight",
    "features.0.0.weight", "features.0.weight",
}  # fmt: skip


@dataclass(frozen=True)
class ChosenEncoder:
    """The networks in a file, each by its own names, and the prefixes that they had."""

    tensors: Tensors  # the whole state dict
    encoder: Tensors
    prefix: str = ""  # of the encoder
    tool: str = ""  # the tool's name, or a description
    numbered: str = ""  # the ResNet's origin, if its parts were numbered
    f_q: Tensors = field(default_factory=dict)  # the trained network, if the encoder is its average
    head: Tensors = field(default_factory=dict)  # of f_q
    f_k: Tensors = field(default_factory=dict)  # backbone.* and head.*
    predictor: Tensors = field(default_factory=dict)
    instead: str = ""  # prefix of the trained network, if its average was chosen


def all_tensors(content: dict[Any, Any], where: str) -> Tensors:
    """The state dict in a file, without wrappers' prefixes; {}: none. Several state dicts get a prefix each.

    Raises:
        WeightsError: two names would become one.
    """
    found = {key: without_wrappers(tensors, where) for key, tensors in state_dicts(content).items()}
    average, trained = (next((key for key in keys if key in found), None) for keys in (AVERAGES, TRAINED))
    if average is not None and trained is not None and {average, trained} != {"teacher", "student"}:
        known = any((tool.trained, tool.average) == (f"{trained}.", f"{average}.") for tool in TOOLS)
        names = (trained, average) if known else ("model", "ema")
        return _with_prefixes(dict(zip(names, (found[trained], found[average]), strict=True)))
    if average is not None or trained == "student":
        return _with_prefixes({key: found[key] for key in ("teacher", "student", average) if key in found})
    if trained is not None or len(found) == 1:
        return found[trained or next(iter(found))]
    return _with_prefixes(found)


def choose_encoder(tensors: Tensors, where: str, prefix: str = "") -> ChosenEncoder:
    """Choose the network in a state dict that becomes the encoder: the whole state dict, if its names show no other.

    Args:
        prefix: has been removed from the names of `tensors`.

    Raises:
        WeightsError: two names would become one.
    """
    inner = without_wrappers(tensors, where)
    if numbered := from_numbered(inner):
        return ChosenEncoder(tensors, numbered[0], prefix, numbered=numbered[1])
    if not NETWORK.isdisjoint(inner):
        network = {key: value for key, value in inner.items() if not PARTS_BESIDE.match(key)}
        return ChosenEncoder(tensors, network, prefix)
    tools = [tool for tool in TOOLS if _has(inner, tool.average)]
    if tools:
        tool = next((one for one in tools if _has(inner, one.trained)), tools[0])
        return replace(_choose_of_tool(tool, inner, where, prefix), tensors=tensors)
    for one in (*SURE, *LIKELY):
        if _has(inner, one) and (one in SURE or _only_training_parts_beside(inner, one)):
            return replace(choose_encoder(under(inner, one), where, prefix + one), tensors=tensors)
    return ChosenEncoder(tensors, inner, prefix)


def _choose_of_tool(tool: Tool, tensors: Tensors, where: str, prefix: str) -> ChosenEncoder:
    average = choose_encoder(under(tensors, tool.average), where, prefix + tool.average)
    if not _has(tensors, tool.trained):
        return replace(average, tool=tool.name)
    trained = choose_encoder(under(tensors, tool.trained), where, prefix + tool.trained)
    heads = [under(tensors, one) if one else {} for one in (tool.head, tool.average_head)]
    f_k = {f"backbone.{key}": value for key, value in average.encoder.items()}
    return replace(
        average, tool=tool.name, f_q=trained.encoder, head=heads[0], instead=trained.prefix,
        f_k=f_k | {f"head.{key}": value for key, value in heads[1].items()},
        predictor=under(tensors, tool.predictor) if tool.predictor else {},
    )  # fmt: skip


def _has(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _only_training_parts_beside(names: Iterable[str], prefix: str) -> bool:
    """Whether all names without the prefix are usual parts of a training program."""
    return all(name.startswith(prefix) or BESIDE.match(name) for name in names)


def _with_prefixes(found: dict[str, Tensors]) -> Tensors:
    return {f"{key}.{name}": tensor for key, tensors in found.items() for name, tensor in tensors.items()}
