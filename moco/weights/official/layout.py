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

from torch import Tensor

from moco.weights.describe import of_official
from moco.weights.infer_architecture import infer_data, recognised, recognised_head
from moco.weights.loaded import Found, WeightsError, few

Tensors = dict[str, Tensor]


class Names(NamedTuple):
    """What a project calls its two encoders."""

    f_q: str
    f_k: str
    project: str


V1 = Names("encoder_q.", "encoder_k.", "facebookresearch/moco")
V3 = Names("base_encoder.", "momentum_encoder.", "facebookresearch/moco-v3")
VERSIONS = {"linear": "MoCo v1", "mlp": "MoCo v2"}  # by the head
DDP = "module."
F_K_UPDATED = "f_k_updated"
HEAD = re.compile(r"(?:fc|head)\.((?:\d+\.)?(?:weight|bias|running_mean|running_var|num_batches_tracked))")


def state_in(content: dict[str, Any]) -> Tensors | None:
    """The state dict in a file: bare, or under "state_dict" or "model"; without DDP's "module."; or None."""
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content.get(key), dict) else content
    if not content or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return None
    prefix = DDP if all(key.startswith(DDP) for key in content) else ""
    return {key.removeprefix(prefix): value for key, value in content.items()}


def names_in(state: Tensors) -> Names | None:
    """Whose names these are; None: nobody's of the two."""
    return next((names for names in (V1, V3) if any(key.startswith((names.f_q, names.f_k)) for key in state)), None)


def is_linear_probe(content: dict[str, Any]) -> bool:
    """Whether a file is what the authors' main_lincls.py writes: a backbone with a trained classifier in its place."""
    state = content.get("state_dict")
    names = {f"{prefix}{last}.weight" for prefix in ("", DDP) for last in ("fc", "head")}
    return isinstance(state, dict) and "arch" in content and not names.isdisjoint(state)


def parse(content: dict[str, Any], where: str) -> Found | None:
    """What an official checkpoint holds, by our names; None: it is none.

    Raises:
        WeightsError: it is one, and lacks the encoder that is transferred.
    """
    state = state_in(content)
    names = None if state is None else names_in(state)
    if state is None or names is None:
        return None
    backbone, head = _parted(under(state, names.f_q))
    if not backbone:
        raise WeightsError(
            f"{where} has no {names.f_q}*, the encoder that is transferred, only {few(list(state))}: give a checkpoint "
            "that has it"
        )
    keys_backbone, keys_head = _parted(under(state, names.f_k))
    f_k = {f"backbone.{key}": value for key, value in keys_backbone.items()}
    f_k |= {f"head.{key}": value for key, value in keys_head.items()}
    network, settings = recognised(backbone, of_moco_v3=names is V3), recognised_head(head)
    guess = None if network is None else network.model_copy(update=settings)
    queue = {}
    if "queue" in state and "queue_ptr" in state:  # there a column a key
        queue = {"keys": state["queue"].T.contiguous(), "oldest": state["queue_ptr"].reshape(())}
    version = VERSIONS.get(settings.get("head", ""), "MoCo") if names is V1 else "MoCo v3"
    facts = {key: content[key] for key in ("epoch", "arch") if isinstance(content.get(key), int | str)}
    found = Found(
        where, backbone, head, guess=guess, data=None if guess is None else infer_data(guess, backbone),
        recipe=f"{version}, {names.project}", facts=facts, f_k=f_k,
        f_k_lags=bool(f_k) and not content.get(F_K_UPDATED), predictor=under(state, "predictor."),
        queue=queue, content=content,
    )  # fmt: skip
    others = [key for key in state if not key.startswith((names.f_q, names.f_k, "predictor.", "queue"))]
    return replace(found, contents=of_official(f"{version} ({names.project})", found, others))


def compose(found: Found, *, v3: bool) -> Tensors:
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


def encoder_q(found: Found) -> Tensors:
    """f_q as `found.f_k` has f_k: backbone.* and head.*."""
    parts = {"backbone.": found.backbone, "head.": found.head}
    return {prefix + key: value for prefix, tensors in parts.items() for key, value in tensors.items()}


def is_vit(tensors: Tensors) -> bool:
    return "blocks.0.attn.qkv.weight" in tensors


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _parted(encoder: Tensors) -> tuple[Tensors, Tensors]:
    """Backbone and head."""
    matches = {key: HEAD.fullmatch(key) for key in encoder}
    head = {match[1]: encoder[key] for key, match in matches.items() if match}
    return {key: value for key, value in encoder.items() if not matches[key]}, head
