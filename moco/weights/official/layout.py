"""Convert checkpoints of facebookresearch/moco (v1, v2) and facebookresearch/moco-v3 to our names, and back.

    {"epoch", "arch", "state_dict", "optimizer"[, "scaler"]}; every name in state_dict begins with DDP's "module."
    Files that we write also have "f_k_updated": their f_k has had its last momentum update, which in the authors' files
    is missing. The authors' scripts ignore this key.
    v1, v2: encoder_q.*, encoder_k.* (torchvision's names; the head is fc), queue [C, K], queue_ptr [1]
    v3:     base_encoder.*, momentum_encoder.* (torchvision's or timm's; the head is fc or head), predictor.*

The released v1 and v2 files have only encoder_q.
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


class Prefixes(NamedTuple):
    """The prefixes of a project's two encoders."""

    f_q: str
    f_k: str
    project: str


V1 = Prefixes("encoder_q.", "encoder_k.", "facebookresearch/moco")
V3 = Prefixes("base_encoder.", "momentum_encoder.", "facebookresearch/moco-v3")
VERSIONS = {"linear": "MoCo v1", "mlp": "MoCo v2"}  # head -> version
F_K_UPDATED = "f_k_updated"
HEAD = re.compile(r"(?:fc|head)\.((?:\d+\.)?(?:weight|bias|running_mean|running_var|num_batches_tracked))")


def find_state(content: dict[str, Any], where: str = "the file") -> Tensors | None:
    """The state dict in a file, without wrappers' prefixes: the file itself, or under "state_dict" or "model"; or None.

    Raises:
        WeightsError: two names would become one.
    """
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content.get(key), dict) else content
    if not content or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return None
    state = without_wrappers(content, where)
    return under(state, "model.") if all(key.startswith("model.") for key in state) else state  # as Lightning saves it


def recognise_names(state: Tensors) -> Prefixes | None:
    """The project that uses these names; None: neither of the two."""

    def has(*prefixes: str) -> bool:
        return any(key.startswith(prefixes) for key in state)

    if has(V1.f_q + "0.conv1.", V1.f_q + "0.patch_embed.") or (has("backbone.") and not has(V1.f_q)):
        return None  # mmselfsup, mmpretrain
    if has(V1.f_q, V1.f_k):
        return V1
    # other tools have "encoder." beside "momentum_encoder."
    theirs = has(V3.f_q) or all(key.startswith((V3.f_k, "predictor.")) for key in state)
    return V3 if theirs else None


def is_linear_probe(content: dict[str, Any]) -> bool:
    """Whether the authors' main_lincls.py wrote the file: a backbone with a linear classifier in place of the head.

    Supervised training gives the same names. But the optimizer of a linear probe has only the classifier's two tensors
    (main_lincls.py asserts it). A file without an optimizer does not count as a linear probe.
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
    """The epoch and the architecture, as the file records them."""
    return {key: content[key] for key in ("epoch", "arch") if isinstance(content.get(key), int | str)}


def queue_of(state: Tensors, where: str, *, layers: bool = False) -> Tensors:
    """The queue of a state dict in our layout: keys K x C; oldest, the row to be replaced next. Empty: no queue.

    Args:
        layers: allow 2 x C x K, a queue for the keys of each view, as solo-learn has; the first one is used.

    Raises:
        WeightsError: the queue has another shape, or the pointer is out of range.
    """
    if "queue" not in state or "queue_ptr" not in state:
        return {}
    queue, pointer = state["queue"], state["queue_ptr"]
    if layers and queue.ndim == 3 and len(queue):
        queue = queue[0]
    if queue.ndim != 2 or not queue.is_floating_point():
        raise WeightsError(
            f"the queue in {where} is {queue.dtype} of shape {list(queue.shape)}: expected floating-point numbers "
            "C x K, a column for each key"
        )
    size = queue.shape[1]
    if pointer.numel() != 1 or pointer.dtype != torch.int64 or not 0 <= int(pointer) < max(size, 1):
        raise WeightsError(
            f"queue_ptr in {where} is {pointer.flatten()[:3].tolist()}: expected the index of one of the {size:,} keys"
        )
    return {"keys": queue.T.contiguous(), "oldest": pointer.reshape(())}


def parse_official(content: dict[str, Any], where: str) -> LoadedWeights | None:
    """The parts of an official checkpoint, by our names; None: the file is not an official checkpoint.

    Raises:
        WeightsError: it is one, but lacks f_q, the encoder to evaluate.
    """
    state = find_state(content, where)
    names = None if state is None else recognise_names(state)
    if state is None or names is None:
        return None
    backbone, head = _split_head(under(state, names.f_q))
    if not backbone:
        raise WeightsError(
            f"{where} has no {names.f_q}*, the query encoder: give a checkpoint that has it. It has only "
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
    """The state dict of an official checkpoint, with all parts that `found` has. The inverse of `parse_official`."""
    names = V3 if v3 else V1
    last = "head." if is_vit(found.backbone) else "fc."
    renamed: Tensors = {}
    if found.queue and not v3:  # a module's own buffers come before those of its submodules
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
    """The tensors of f_q, named like those in `found.f_k`: backbone.* and head.*."""
    parts = {"backbone.": found.backbone, "head.": found.head}
    return {prefix + key: value for prefix, tensors in parts.items() for key, value in tensors.items()}


def is_vit(tensors: Tensors) -> bool:
    return "blocks.0.attn.qkv.weight" in tensors


def _split_head(encoder: Tensors) -> tuple[Tensors, Tensors]:
    """The tensors of the backbone, and those of the head."""
    matches = {key: HEAD.fullmatch(key) for key in encoder}
    head = {match[1]: encoder[key] for key, match in matches.items() if match}
    return {key: value for key, value in encoder.items() if not matches[key]}, head
