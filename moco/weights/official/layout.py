"""The checkpoints of facebookresearch/moco (v1, v2) and facebookresearch/moco-v3: their names -> ours, and back.

    {"epoch", "arch", "state_dict", "optimizer"[, "scaler"]}; every name in state_dict begins with DDP's "module."
    Files that we write have "f_k_updated" too, which no script of theirs reads: f_k is not behind as theirs is.
    v1, v2: encoder_q.*, encoder_k.* (torchvision's names; the head is fc), queue [C, K], queue_ptr [1]
    v3:     base_encoder.*, momentum_encoder.* (torchvision's or timm's; the head is fc or head), predictor.*

The released v1 and v2 files have encoder_q alone.
"""

import re
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from moco.text import first_few
from moco.weights.describe_file import describe_official
from moco.weights.infer_architecture import infer_data, recognise_head, recognise_network
from moco.weights.loaded_weights import LoadedWeights, WeightsError
from moco.weights.tensor_names import DDP, Tensors, under, without_wrappers


class Names(NamedTuple):
    """What a project calls its two encoders."""

    f_q: str
    f_k: str
    project: str


V1 = Names("encoder_q.", "encoder_k.", "facebookresearch/moco")
V3 = Names("base_encoder.", "momentum_encoder.", "facebookresearch/moco-v3")
VERSIONS = {"linear": "MoCo v1", "mlp": "MoCo v2"}  # by the head
F_K_UPDATED = "f_k_updated"
HEAD = re.compile(r"(?:fc|head)\.((?:\d+\.)?(?:weight|bias|running_mean|running_var|num_batches_tracked))")


def find_state(content: dict[str, Any], where: str = "the file") -> Tensors | None:
    """The state dict in a file: bare, or under "state_dict" or "model"; by unwrapped names; or None.

    Raises:
        WeightsError: two names would become one.
    """
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content.get(key), dict) else content
    if not content or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return None
    state = without_wrappers(content, where)
    return under(state, "model.") if all(key.startswith("model.") for key in state) else state  # Lightning's


def recognise_names(state: Tensors) -> Names | None:
    """The project whose names these are; None: neither of the two."""

    def has(*prefixes: str) -> bool:
        return any(key.startswith(prefixes) for key in state)

    if has(V1.f_q, V1.f_k):
        return V1
    # "encoder." with "momentum_encoder." is of others
    theirs = has(V3.f_q) or all(key.startswith((V3.f_k, "predictor.")) for key in state)
    return V3 if theirs else None


def is_linear_probe(content: dict[str, Any]) -> bool:
    """Whether a file is what the authors' main_lincls.py writes: a backbone with a trained classifier in its place.

    A supervised training writes the same names. But the probe's optimizer has the classifier's two tensors alone
    (main_lincls.py asserts it), and a file without an optimizer does not tell.
    """
    state, optimizer = content.get("state_dict"), content.get("optimizer")
    names = {f"{prefix}{last}.weight" for prefix in ("", DDP) for last in ("fc", "head")}
    if not isinstance(state, dict) or "arch" not in content or names.isdisjoint(state):
        return False
    try:
        return sum(len(group["params"]) for group in optimizer["param_groups"]) == 2  # pyright: ignore
    except (TypeError, KeyError):
        return False


def metadata_of(content: dict[str, Any]) -> dict[str, Any]:
    """The epoch and the architecture that a file names."""
    return {key: content[key] for key in ("epoch", "arch") if isinstance(content.get(key), int | str)}


def queue_of(state: Tensors, where: str, *, layers: bool = False) -> Tensors:
    """The queue of a state dict as ours: keys K x C; oldest, the row to be replaced next. Empty where there is none.

    Args:
        layers: it may be 2 x C x K, a queue for the keys of each view, as in solo-learn; the first is taken.

    Raises:
        WeightsError: it has another shape, or its pointer points nowhere.
    """
    if "queue" not in state or "queue_ptr" not in state:
        return {}
    queue, pointer = state["queue"], state["queue_ptr"]
    if layers and queue.ndim == 3 and len(queue):
        queue = queue[0]
    if queue.ndim != 2 or not queue.is_floating_point():
        raise WeightsError(
            f"the queue in {where} is {queue.dtype} of shape {list(queue.shape)}: expected numbers C x K, a column for "
            "each key"
        )
    size = queue.shape[1]
    if pointer.numel() != 1 or pointer.dtype != torch.int64 or not 0 <= int(pointer) < max(size, 1):
        raise WeightsError(
            f"queue_ptr in {where} is {pointer.flatten()[:3].tolist()}: expected one of the {size:,} keys"
        )
    return {"keys": queue.T.contiguous(), "oldest": pointer.reshape(())}


def parse_official(content: dict[str, Any], where: str) -> LoadedWeights | None:
    """The parts of an official checkpoint, by our names; None: the file is not an official checkpoint.

    Raises:
        WeightsError: it is one, but lacks the encoder that is transferred.
    """
    state = find_state(content, where)
    names = None if state is None else recognise_names(state)
    if state is None or names is None:
        return None
    backbone, head = _split_head(under(state, names.f_q))
    if not backbone:
        raise WeightsError(
            f"{where} has no {names.f_q}*, the encoder that is transferred: give a checkpoint that has it. It has only "
            f"{first_few(list(state), most=6)}"
        )
    keys_backbone, keys_head = _split_head(under(state, names.f_k))
    f_k = {f"backbone.{key}": value for key, value in keys_backbone.items()}
    f_k |= {f"head.{key}": value for key, value in keys_head.items()}
    network, settings = recognise_network(backbone, of_moco_v3=names is V3), recognise_head(head)
    guess = None if network is None else network.model_copy(update=settings)
    version = VERSIONS.get(settings.get("head", ""), "MoCo") if names is V1 else "MoCo v3"
    found = LoadedWeights(
        where, backbone, head, guess=guess, data=None if guess is None else infer_data(guess, backbone),
        recipe=f"{version}, {names.project}", facts=metadata_of(content), f_k=f_k,
        f_k_lags=bool(f_k) and not content.get(F_K_UPDATED), predictor=under(state, "predictor."),
        queue=queue_of(state, where), content=content,
    )  # fmt: skip
    others = [key for key in state if not key.startswith((names.f_q, names.f_k, "predictor.", "queue"))]
    return replace(found, contents=describe_official(f"{version} ({names.project})", found, others))


def compose_official(found: LoadedWeights, *, v3: bool) -> Tensors:
    """The state dict of an official checkpoint: as many of its parts as were found. Undoes `parse`."""
    names = V3 if v3 else V1
    last = "head." if is_vit(found.backbone) else "fc."
    renamed: Tensors = {}
    if found.queue and not v3:  # a module's own tensors come before those in it
        renamed["queue"] = found.queue["keys"].T.contiguous()
        renamed["queue_ptr"] = found.queue["oldest"].reshape(1)
    for prefix, encoder in ((names.f_q, encoder_q(found)), (names.f_k, found.f_k)):
        for key, value in encoder.items():
            part, _, name = key.partition(".")
            renamed[f"{prefix}{last if part == 'head' else ''}{name}"] = value
    if v3:
        renamed |= {f"predictor.{key}": value for key, value in found.predictor.items()}
    return {DDP + key: value for key, value in renamed.items()}


def encoder_q(found: LoadedWeights) -> Tensors:
    """f_q as `found.f_k` has f_k: backbone.* and head.*."""
    parts = {"backbone.": found.backbone, "head.": found.head}
    return {prefix + key: value for prefix, tensors in parts.items() for key, value in tensors.items()}


def is_vit(tensors: Tensors) -> bool:
    return "blocks.0.attn.qkv.weight" in tensors


def _split_head(encoder: Tensors) -> tuple[Tensors, Tensors]:
    """Backbone and head."""
    matches = {key: HEAD.fullmatch(key) for key in encoder}
    head = {match[1]: encoder[key] for key, match in matches.items() if match}
    return {key: value for key, value in encoder.items() if not matches[key]}, head
