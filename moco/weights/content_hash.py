"""The SHA-256 of weights in memory: the same for the same tensors, in whatever file or folder they are."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from moco.weights.loaded_weights import LoadedWeights


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of names, dtypes, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_of_weights(found: LoadedWeights) -> str:
    """The SHA-256 of all that a run may start from: f_q, head, f_k, predictor and queue."""
    parts = {
        "backbone": found.backbone, "head": found.head, "f_k": found.f_k, "predictor": found.predictor,
        "queue": found.queue, "f_q": found.f_q,
    }  # fmt: skip
    return content_hash({f"{part} {name}": x for part, tensors in parts.items() for name, x in tensors.items()})
