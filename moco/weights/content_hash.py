"""The SHA-256 of weights in memory. It does not depend on the kind or name of the file they come from."""

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


def hash_of_weights(weights: LoadedWeights) -> str:
    """The SHA-256 of everything that a run may start from: f_q, head, f_k, predictor and queue."""
    parts = {
        "backbone": weights.backbone, "head": weights.head, "f_k": weights.f_k, "predictor": weights.predictor,
        "queue": weights.queue, "f_q": weights.f_q,
    }  # fmt: skip
    return content_hash({f"{part} {name}": x for part, tensors in parts.items() for name, x in tensors.items()})
